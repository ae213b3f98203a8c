// drm/xen_zcopy_drm.h of the drm/xen-zcopy series (version 1, 2018), which was never merged: no package has
// the header, so nothing compares this with it. For those who have a program that was written against it.
// As on LP64; the embedded struct is drm_mode_create_dumb of drm/drm_mode.h.
import { ioReadWrite } from './ioctl.ts';
import { pointer, struct, u32, u64 } from './layout.ts';

/** DRM_IOCTL_BASE and DRM_COMMAND_BASE: a driver's own calls begin there. */
const DRM_TYPE = 'd';
const DRM_COMMAND_BASE = 0x40;

export const drmModeCreateDumb = struct('drm_mode_create_dumb', 'A buffer without tiling.', {
  height: [0, u32, 'rows'],
  width: [4, u32, 'pixels of a row'],
  bpp: [8, u32, 'bits of a pixel'],
  flags: [12, u32, 'none are defined'],
  handle: [16, u32, 'out: the GEM handle'],
  pitch: [20, u32, 'out: bytes of a row'],
  size: [24, u64, 'out: bytes'],
});

export const drmXenZcopyDumbFromRefs = struct(
  'drm_xen_zcopy_dumb_from_refs',
  'Makes a buffer of the pages that a domain granted.',
  {
    num_grefs: [0, u32, 'grant references in grefs'],
    grefs: [8, pointer, 'uint32_t[num_grefs]'],
    otherend_id: [16, u64, 'the granting domain'],
    dumb: [24, drmModeCreateDumb, 'in: what the buffer shows; out: the buffer'],
    wait_handle: [56, u32, 'out: for DUMB_WAIT_FREE'],
  },
);
export const DRM_IOCTL_XEN_ZCOPY_DUMB_FROM_REFS = ioReadWrite(
  DRM_TYPE,
  DRM_COMMAND_BASE,
  drmXenZcopyDumbFromRefs.size,
);

export const drmXenZcopyDumbToRefs = struct(
  'drm_xen_zcopy_dumb_to_refs',
  'Grants the pages of an imported buffer to a domain.',
  {
    num_grefs: [0, u32, 'room in grefs, one for each page'],
    grefs: [8, pointer, 'out: uint32_t[num_grefs]'],
    otherend_id: [16, u64, 'the domain that may map them'],
    handle: [24, u32, 'GEM handle of the buffer'],
  },
);
export const DRM_IOCTL_XEN_ZCOPY_DUMB_TO_REFS = ioReadWrite(
  DRM_TYPE,
  DRM_COMMAND_BASE + 1,
  drmXenZcopyDumbToRefs.size,
);

export const drmXenZcopyDumbWaitFree = struct(
  'drm_xen_zcopy_dumb_wait_free',
  'Waits until a buffer of DUMB_FROM_REFS is freed.',
  {
    wait_handle: [0, u32, 'as DUMB_FROM_REFS gave it'],
    wait_to_ms: [4, u32, 'milliseconds'],
  },
);
export const DRM_IOCTL_XEN_ZCOPY_DUMB_WAIT_FREE = ioReadWrite(
  DRM_TYPE,
  DRM_COMMAND_BASE + 2,
  drmXenZcopyDumbWaitFree.size,
);
