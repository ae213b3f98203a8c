// xen/io/xs_wire.h: XenStore's messages, on the Unix socket and in the page shared with a guest.
import { bytes, names, struct, u32 } from './layout.ts';

export const XS_CONTROL = 0;
/** The old name of XS_CONTROL. */
export const XS_DEBUG = XS_CONTROL;
export const XS_DIRECTORY = 1;
export const XS_READ = 2;
export const XS_GET_PERMS = 3;
export const XS_WATCH = 4;
export const XS_UNWATCH = 5;
export const XS_TRANSACTION_START = 6;
export const XS_TRANSACTION_END = 7;
export const XS_INTRODUCE = 8;
export const XS_RELEASE = 9;
export const XS_GET_DOMAIN_PATH = 10;
export const XS_WRITE = 11;
export const XS_MKDIR = 12;
export const XS_RM = 13;
export const XS_SET_PERMS = 14;
export const XS_WATCH_EVENT = 15;
export const XS_ERROR = 16;
export const XS_IS_DOMAIN_INTRODUCED = 17;
export const XS_RESUME = 18;
export const XS_SET_TARGET = 19;
export const XS_RESET_WATCHES = 21;
export const XS_DIRECTORY_PART = 22;
/** Never the type of a message. */
export const XS_INVALID = 0xffff;

/** The C name of a message type, for logs. */
export const xsMessageName = names({
  XS_CONTROL,
  XS_DIRECTORY,
  XS_READ,
  XS_GET_PERMS,
  XS_WATCH,
  XS_UNWATCH,
  XS_TRANSACTION_START,
  XS_TRANSACTION_END,
  XS_INTRODUCE,
  XS_RELEASE,
  XS_GET_DOMAIN_PATH,
  XS_WRITE,
  XS_MKDIR,
  XS_RM,
  XS_SET_PERMS,
  XS_WATCH_EVENT,
  XS_ERROR,
  XS_IS_DOMAIN_INTRODUCED,
  XS_RESUME,
  XS_SET_TARGET,
  XS_RESET_WATCHES,
  XS_DIRECTORY_PART,
});

/** Places of the two strings in a WATCH_EVENT. */
export const XS_WATCH_PATH = 0;
export const XS_WATCH_TOKEN = 1;

export const sockmsg = struct('xsd_sockmsg', 'Head of every message; its payload follows.', {
  type: [0, u32, 'XS_*'],
  req_id: [4, u32, "the requester's, echoed in the reply; 0 in watch events"],
  tx_id: [8, u32, 'the transaction, 0 outside of any'],
  len: [12, u32, 'bytes of payload'],
});

/** Bytes of payload; who sends more is disconnected. */
export const XENSTORE_PAYLOAD_MAX = 4096;
/** Bytes of a path that starts with "/". */
export const XENSTORE_ABS_PATH_MAX = 3072;
/** Bytes of any other path. */
export const XENSTORE_REL_PATH_MAX = 2048;

/** Bytes of each of the two rings; a power of two. */
export const XENSTORE_RING_SIZE = 1024;

export const xenstoreInterface = struct(
  'xenstore_domain_interface',
  'The page that a guest shares with xenstored: two rings of bytes. Indexes run freely in 32 bits.',
  {
    req: [0, bytes(XENSTORE_RING_SIZE), 'requests'],
    rsp: [1024, bytes(XENSTORE_RING_SIZE), 'replies and watch events'],
    req_cons: [2048, u32, 'bytes of req that xenstored has taken'],
    req_prod: [2052, u32, 'bytes of req that the guest has written'],
    rsp_cons: [2056, u32, 'bytes of rsp that the guest has taken'],
    rsp_prod: [2060, u32, 'bytes of rsp that xenstored has written'],
    server_features: [2064, u32, 'XENSTORE_SERVER_FEATURE_*'],
    connection: [2068, u32, 'XENSTORE_CONNECTED or XENSTORE_RECONNECT'],
    error: [2072, u32, 'XENSTORE_ERROR_*'],
  },
);

export const XENSTORE_SERVER_FEATURE_RECONNECTION = 1;
export const XENSTORE_SERVER_FEATURE_ERROR = 2;

export const XENSTORE_CONNECTED = 0;
export const XENSTORE_RECONNECT = 1;

export const XENSTORE_ERROR_NONE = 0;
export const XENSTORE_ERROR_COMM = 1;
export const XENSTORE_ERROR_RINGIDX = 2;
export const XENSTORE_ERROR_PROTO = 3;

export const XS_WRITE_NONE = 'NONE';
export const XS_WRITE_CREATE = 'CREATE';
export const XS_WRITE_CREATE_EXCL = 'CREATE|EXCL';

/** The payload of XS_ERROR is one of these, with a NUL after it. */
export const xsdErrors = [
  'EINVAL',
  'EACCES',
  'EEXIST',
  'EISDIR',
  'ENOENT',
  'ENOMEM',
  'ENOSPC',
  'EIO',
  'ENOTEMPTY',
  'ENOSYS',
  'EROFS',
  'EBUSY',
  'EAGAIN',
  'EISCONN',
  'E2BIG',
  'EPERM',
] as const;
export type XsdError = (typeof xsdErrors)[number];
