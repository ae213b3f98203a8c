// Error numbers as they go over PV protocols, negated (xen/include/public/errno.h).

export const XEN_ERRNO = {
  XEN_ENOENT: 2,
  XEN_EIO: 5,
  XEN_EAGAIN: 11,
  XEN_ENOMEM: 12,
  XEN_EACCES: 13,
  XEN_EBUSY: 16,
  XEN_EEXIST: 17,
  XEN_EINVAL: 22,
  XEN_ENOSPC: 28,
  XEN_EOPNOTSUPP: 95,
  XEN_ETIMEDOUT: 110,
} as const;

export type XenErrnoName = keyof typeof XEN_ERRNO;
