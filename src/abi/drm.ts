// drm/drm.h: what every DRM device answers, whatever it drives: version, capabilities, the master's role,
// buffers by handle and as dma-bufs, and the events that read(2) gives. Mode setting is drm-mode.ts.
import { ioNone, ioReadWrite, ioWrite } from './ioctl.ts';
import { i32, pointer, struct, u32, u64 } from './layout.ts';

const TYPE = 'd';

export const drmVersion = struct('drm_version', 'Asks for the version and the names of a driver.', {
  version_major: [0, i32, 'out'],
  version_minor: [4, i32, 'out'],
  version_patchlevel: [8, i32, 'out'],
  name_len: [16, u64, 'in: room at name; out: length, without a final zero'],
  name: [24, pointer, 'where the name of the driver goes'],
  date_len: [32, u64, 'as name_len'],
  date: [40, pointer, 'where the date goes'],
  desc_len: [48, u64, 'as name_len'],
  desc: [56, pointer, 'where the description goes'],
});
export const DRM_IOCTL_VERSION = ioReadWrite(TYPE, 0x00, drmVersion.size);

export const drmGemClose = struct('drm_gem_close', 'Gives a handle up.', {
  handle: [0, u32, 'of this open file'],
  pad: [4, u32, 'zero'],
});
export const DRM_IOCTL_GEM_CLOSE = ioWrite(TYPE, 0x09, drmGemClose.size);

export const drmGetCap = struct('drm_get_cap', 'Asks for a capability of the driver.', {
  capability: [0, u64, 'DRM_CAP_*'],
  value: [8, u64, 'out'],
});
export const DRM_IOCTL_GET_CAP = ioReadWrite(TYPE, 0x0c, drmGetCap.size);
export const DRM_CAP_DUMB_BUFFER = 0x1;
export const DRM_CAP_PRIME = 0x5;
export const DRM_PRIME_CAP_IMPORT = 0x1;
export const DRM_PRIME_CAP_EXPORT = 0x2;
export const DRM_CAP_CRTC_IN_VBLANK_EVENT = 0x12;

export const drmSetClientCap = struct('drm_set_client_cap', 'Says what this program can do.', {
  capability: [0, u64, 'DRM_CLIENT_CAP_*'],
  value: [8, u64, '1: it can'],
});
export const DRM_IOCTL_SET_CLIENT_CAP = ioWrite(TYPE, 0x0d, drmSetClientCap.size);
export const DRM_CLIENT_CAP_UNIVERSAL_PLANES = 2;
export const DRM_CLIENT_CAP_ATOMIC = 3;

/** Without arguments: become the one who sets modes; give that up. */
export const DRM_IOCTL_SET_MASTER = ioNone(TYPE, 0x1e, 0);
export const DRM_IOCTL_DROP_MASTER = ioNone(TYPE, 0x1f, 0);

export const drmPrimeHandle = struct('drm_prime_handle', 'A handle as a dma-buf, or the reverse.', {
  handle: [0, u32, 'of this open file'],
  flags: [4, u32, 'for the new dma-buf: DRM_CLOEXEC, DRM_RDWR'],
  fd: [8, i32, 'the dma-buf'],
});
export const DRM_CLOEXEC = 0o2000000;
export const DRM_RDWR = 2;
export const DRM_IOCTL_PRIME_HANDLE_TO_FD = ioReadWrite(TYPE, 0x2d, drmPrimeHandle.size);
export const DRM_IOCTL_PRIME_FD_TO_HANDLE = ioReadWrite(TYPE, 0x2e, drmPrimeHandle.size);

export const drmEvent = struct('drm_event', 'How every event begins.', {
  type: [0, u32, 'DRM_EVENT_*'],
  length: [4, u32, 'bytes, this header included'],
});
export const DRM_EVENT_VBLANK = 0x01;
export const DRM_EVENT_FLIP_COMPLETE = 0x02;

export const drmEventVblank = struct('drm_event_vblank', 'A vblank, or the end of a commit.', {
  base: [0, drmEvent, 'the header'],
  user_data: [8, u64, 'what the commit said'],
  tv_sec: [16, u32, 'of the vblank'],
  tv_usec: [20, u32, 'of the vblank'],
  sequence: [24, u32, 'number of the vblank'],
  crtc_id: [28, u32, '0 where the driver does not say'],
});
