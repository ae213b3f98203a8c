// xen/io/displif.h: the para-virtual display protocol, versions "1" and "2".
// Requests, responses and events are 64 bytes each; all reserved fields are zero when we write.
import { ANONYMOUS, i32, reserved, struct, tail, u8, u16, u32, u64, union } from './layout.ts';
import { PAGE_SIZE } from './page.ts';
import { sring, sringEntry } from './ring.ts';

/** Newest version this file describes, as published in XenStore. */
export const XENDISPL_PROTOCOL_VERSION = '2';
export const XENDISPL_PROTOCOL_VERSION_INT = 2;

export const XENDISPL_OP_DBUF_CREATE = 0x10;
export const XENDISPL_OP_DBUF_DESTROY = 0x11;
export const XENDISPL_OP_FB_ATTACH = 0x12;
export const XENDISPL_OP_FB_DETACH = 0x13;
export const XENDISPL_OP_SET_CONFIG = 0x14;
export const XENDISPL_OP_PG_FLIP = 0x15;
/** Version 2. */
export const XENDISPL_OP_GET_EDID = 0x16;

/** Event type: the flip to a framebuffer is complete. */
export const XENDISPL_EVT_PG_FLIP = 0x00;

/** DBUF_CREATE: the backend allocates the buffer and fills the page directory. */
export const XENDISPL_DBUF_FLG_REQ_ALLOC = 1 << 0;

export const XENDISPL_EDID_BLOCK_SIZE = 128;
export const XENDISPL_EDID_BLOCK_COUNT = 256;
/** Bytes; the EDID buffer of a frontend must hold at least this. */
export const XENDISPL_EDID_MAX_SIZE = XENDISPL_EDID_BLOCK_SIZE * XENDISPL_EDID_BLOCK_COUNT;

export const XENDISPL_DRIVER_NAME = 'vdispl';
export const XENDISPL_LIST_SEPARATOR = ',';
export const XENDISPL_RESOLUTION_SEPARATOR = 'x';
/** Backend node: list of the versions it speaks. */
export const XENDISPL_FIELD_BE_VERSIONS = 'versions';
/** Frontend node: the version it chose; absent means "1". */
export const XENDISPL_FIELD_FE_VERSION = 'version';
/** Frontend nodes, per connector, u32 in decimal. */
export const XENDISPL_FIELD_REQ_RING_REF = 'req-ring-ref';
export const XENDISPL_FIELD_REQ_CHANNEL = 'req-event-channel';
export const XENDISPL_FIELD_EVT_RING_REF = 'evt-ring-ref';
export const XENDISPL_FIELD_EVT_CHANNEL = 'evt-event-channel';
/** Per connector, "WIDTHxHEIGHT" in pixels. */
export const XENDISPL_FIELD_RESOLUTION = 'resolution';
/** Frontend node: "1" when buffers are to be allocated by the backend. */
export const XENDISPL_FIELD_BE_ALLOC = 'be-alloc';
/** Per connector, any string. */
export const XENDISPL_FIELD_UNIQUE_ID = 'unique-id';

export const dbufCreateReq = struct('xendispl_dbuf_create_req', 'Creates a display buffer.', {
  dbuf_cookie: [0, u64, 'unique in the guest, 0 is invalid'],
  width: [8, u32, 'pixels'],
  height: [12, u32, 'pixels'],
  bpp: [16, u32, 'bits per pixel'],
  buffer_sz: [20, u32, 'bytes'],
  flags: [24, u32, 'XENDISPL_DBUF_FLG_*'],
  gref_directory: [28, u32, 'first page of the page directory'],
  data_ofs: [32, u32, 'bytes before the first pixel; version 2, zero in version 1'],
});

export const pageDirectory = struct('xendispl_page_directory', 'One page of grant references.', {
  gref_dir_next_page: [0, u32, 'grant reference of the next page, 0 at the end'],
  gref: [4, tail(u32, 1), 'grant references of the buffer'],
});

/** Grant references in one whole page of the directory: 1023. */
export const grefsPerDirectoryPage = (PAGE_SIZE - pageDirectory.fields.gref.offset) / u32.size;

export const dbufDestroyReq = struct('xendispl_dbuf_destroy_req', 'Destroys a display buffer.', {
  dbuf_cookie: [0, u64, 'the buffer'],
});

export const fbAttachReq = struct('xendispl_fb_attach_req', 'Makes a framebuffer of a buffer.', {
  dbuf_cookie: [0, u64, 'the buffer'],
  fb_cookie: [8, u64, 'unique in the guest, 0 is invalid'],
  width: [16, u32, 'pixels'],
  height: [20, u32, 'pixels'],
  pixel_format: [24, u32, 'DRM FourCC'],
});

export const fbDetachReq = struct('xendispl_fb_detach_req', 'Destroys a framebuffer.', {
  fb_cookie: [0, u64, 'the framebuffer'],
});

export const setConfigReq = struct(
  'xendispl_set_config_req',
  'Sets the mode of the connector, or resets it when all fields are zero.',
  {
    fb_cookie: [0, u64, 'the framebuffer to show'],
    x: [8, u32, 'pixels'],
    y: [12, u32, 'pixels'],
    width: [16, u32, 'pixels'],
    height: [20, u32, 'pixels'],
    bpp: [24, u32, 'bits per pixel'],
  },
);

export const pageFlipReq = struct('xendispl_page_flip_req', 'Shows another framebuffer.', {
  fb_cookie: [0, u64, 'the framebuffer to show'],
});

export const getEdidReq = struct('xendispl_get_edid_req', "Asks for the connector's EDID.", {
  buffer_sz: [0, u32, 'bytes, at least XENDISPL_EDID_MAX_SIZE'],
  gref_directory: [4, u32, 'first page of the page directory of the buffer to fill'],
});

export const getEdidResp = struct('xendispl_get_edid_resp', 'Answers GET_EDID.', {
  edid_sz: [0, u32, 'bytes written to the buffer'],
});

export const pgFlipEvt = struct('xendispl_pg_flip_evt', 'A page flip is complete.', {
  fb_cookie: [0, u64, 'the framebuffer now shown'],
});

export const displReq = struct('xendispl_req', 'A request, frontend to backend.', {
  id: [0, u16, "the frontend's, echoed in the response"],
  operation: [2, u8, 'XENDISPL_OP_*'],
  reserved: [3, reserved(u8, 5), 'zero'],
  op: [
    8,
    union(ANONYMOUS, 'What the operation asks for.', {
      dbuf_create: [0, dbufCreateReq, 'XENDISPL_OP_DBUF_CREATE'],
      dbuf_destroy: [0, dbufDestroyReq, 'XENDISPL_OP_DBUF_DESTROY'],
      fb_attach: [0, fbAttachReq, 'XENDISPL_OP_FB_ATTACH'],
      fb_detach: [0, fbDetachReq, 'XENDISPL_OP_FB_DETACH'],
      set_config: [0, setConfigReq, 'XENDISPL_OP_SET_CONFIG'],
      pg_flip: [0, pageFlipReq, 'XENDISPL_OP_PG_FLIP'],
      get_edid: [0, getEdidReq, 'XENDISPL_OP_GET_EDID'],
      reserved: [0, reserved(u8, 56), 'gives the union its size'],
    }),
    'by operation',
  ],
});

export const displResp = struct('xendispl_resp', 'A response, backend to frontend.', {
  id: [0, u16, "the request's"],
  operation: [2, u8, "the request's"],
  reserved: [3, reserved(u8), 'zero'],
  status: [4, i32, '0 or -XEN_E*'],
  op: [
    8,
    union(ANONYMOUS, 'What the operation answers.', {
      get_edid: [0, getEdidResp, 'XENDISPL_OP_GET_EDID'],
      reserved1: [0, reserved(u8, 56), 'gives the union its size'],
    }),
    'by operation',
  ],
});

export const displEvt = struct('xendispl_evt', 'An event, backend to frontend.', {
  id: [0, u16, "the backend's, one more for each event"],
  type: [2, u8, 'XENDISPL_EVT_*'],
  reserved: [3, reserved(u8, 5), 'zero'],
  op: [
    8,
    union(ANONYMOUS, 'What happened.', {
      pg_flip: [0, pgFlipEvt, 'XENDISPL_EVT_PG_FLIP'],
      reserved: [0, reserved(u8, 56), 'gives the union its size'],
    }),
    'by type',
  ],
});

export const displSringEntry = sringEntry('xen_displif', displReq, displResp);
export const displSring = sring('xen_displif', displSringEntry);

export const displEventPage = struct(
  'xendispl_event_page',
  'Head of the page that carries events; the ring of events follows it.',
  {
    in_cons: [0, u32, 'events the frontend has confirmed; it need not confirm any'],
    in_prod: [4, u32, 'events the backend has sent'],
    reserved: [8, reserved(u8, 56), 'zero'],
  },
);

export const XENDISPL_EVENT_PAGE_SIZE = 4096;
export const XENDISPL_IN_RING_OFFS = displEventPage.size;
export const XENDISPL_IN_RING_SIZE = XENDISPL_EVENT_PAGE_SIZE - XENDISPL_IN_RING_OFFS;
/** 63 slots: not a power of two, so slot = index % 63 jumps where the 32-bit index wraps. */
export const XENDISPL_IN_RING_LEN = Math.floor(XENDISPL_IN_RING_SIZE / displEvt.size);
