// xen/gntdev.h of Linux (linux-libc-dev): /dev/xen/gntdev, which maps other domains' grants and
// turns grants into dma-bufs and back. Everything is LP64.
import { ioNone } from './ioctl.ts';
import { ANONYMOUS, i16, pointer, reserved, struct, tail, u16, u32, u64, union } from './layout.ts';

export const ioctlGntdevGrantRef = struct('ioctl_gntdev_grant_ref', 'A grant to map.', {
  domid: [0, u32, 'the granting domain'],
  ref: [4, u32, 'its grant reference'],
});

export const ioctlGntdevMapGrantRef = struct(
  'ioctl_gntdev_map_grant_ref',
  'Reserves a range of the device file that mmap() then maps.',
  {
    count: [0, u32, 'grants in refs'],
    pad: [4, reserved(u32), 'zero'],
    index: [8, u64, 'out: the offset for mmap()'],
    refs: [16, tail(ioctlGntdevGrantRef, 1), 'the grants'],
  },
);
export const IOCTL_GNTDEV_MAP_GRANT_REF = ioNone('G', 0, ioctlGntdevMapGrantRef.size);

export const ioctlGntdevUnmapGrantRef = struct(
  'ioctl_gntdev_unmap_grant_ref',
  'Gives up a range; the pages stay until munmap().',
  {
    index: [0, u64, 'the range, as MAP_GRANT_REF gave it'],
    count: [8, u32, 'pages'],
    pad: [12, reserved(u32), 'zero'],
  },
);
export const IOCTL_GNTDEV_UNMAP_GRANT_REF = ioNone('G', 1, ioctlGntdevUnmapGrantRef.size);

export const ioctlGntdevGetOffsetForVaddr = struct(
  'ioctl_gntdev_get_offset_for_vaddr',
  'Finds the range that is mapped at an address.',
  {
    vaddr: [0, u64, 'the address of the first page'],
    offset: [8, u64, 'out: the range'],
    count: [16, u32, 'out: pages in it'],
    pad: [20, reserved(u32), 'zero'],
  },
);
export const IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR = ioNone('G', 2, ioctlGntdevGetOffsetForVaddr.size);

export const ioctlGntdevSetMaxGrants = struct(
  'ioctl_gntdev_set_max_grants',
  'Obsolete: newer kernels answer ENOTTY.',
  { count: [0, u32, 'grants that may be mapped at once'] },
);
export const IOCTL_GNTDEV_SET_MAX_GRANTS = ioNone('G', 3, ioctlGntdevSetMaxGrants.size);

/** Actions of SET_UNMAP_NOTIFY, here and in gntalloc. */
export const UNMAP_NOTIFY_CLEAR_BYTE = 1;
export const UNMAP_NOTIFY_SEND_EVENT = 2;

export const ioctlGntdevUnmapNotify = struct(
  'ioctl_gntdev_unmap_notify',
  'What happens when a page is unmapped, even because the process died.',
  {
    index: [0, u64, 'offset in the device file of the byte to clear'],
    action: [8, u32, 'UNMAP_NOTIFY_*'],
    event_channel_port: [12, u32, 'the port to send to'],
  },
);
export const IOCTL_GNTDEV_SET_UNMAP_NOTIFY = ioNone('G', 7, ioctlGntdevUnmapNotify.size);

const copyEnd = union(ANONYMOUS, 'One end of a copy, ours or a grant.', {
  virt: [0, pointer, 'the address, when it is ours'],
  foreign: [
    0,
    struct(ANONYMOUS, 'A span of a granted page.', {
      ref: [0, u32, 'grant reference'],
      offset: [4, u16, 'bytes into the page'],
      domid: [6, u16, 'the granting domain'],
    }),
    'when GNTCOPY_*_gref is set',
  ],
});

export const gntdevGrantCopySegment = struct('gntdev_grant_copy_segment', 'One span to copy.', {
  source: [0, copyEnd, 'from'],
  dest: [8, copyEnd, 'to'],
  len: [16, u16, 'bytes; must not leave the granted page'],
  flags: [18, u16, 'GNTCOPY_*: which end is a grant, at least one'],
  status: [20, i16, 'out: GNTST_*'],
});

export const ioctlGntdevGrantCopy = struct('ioctl_gntdev_grant_copy', 'Copies spans.', {
  count: [0, u32, 'segments'],
  segments: [8, pointer, 'struct gntdev_grant_copy_segment[count]'],
});
export const IOCTL_GNTDEV_GRANT_COPY = ioNone('G', 8, ioctlGntdevGrantCopy.size);

/** Memory of an exported dma-buf is write-combining; not together with COHERENT. */
export const GNTDEV_DMA_FLAG_WC = 1 << 0;
export const GNTDEV_DMA_FLAG_COHERENT = 1 << 1;

export const ioctlGntdevDmabufExpFromRefs = struct(
  'ioctl_gntdev_dmabuf_exp_from_refs',
  'Makes a dma-buf of the pages that a domain granted.',
  {
    flags: [0, u32, 'GNTDEV_DMA_FLAG_*'],
    count: [4, u32, 'grant references in refs'],
    fd: [8, u32, 'out: the dma-buf'],
    domid: [12, u32, 'the granting domain'],
    refs: [16, tail(u32, 1), 'grant references'],
  },
);
export const IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS = ioNone('G', 9, ioctlGntdevDmabufExpFromRefs.size);

export const ioctlGntdevDmabufExpWaitReleased = struct(
  'ioctl_gntdev_dmabuf_exp_wait_released',
  'Waits until nobody holds an exported dma-buf and its grants are unmapped.',
  {
    fd: [0, u32, 'the dma-buf, as EXP_FROM_REFS gave it'],
    wait_to_ms: [4, u32, 'milliseconds'],
  },
);
export const IOCTL_GNTDEV_DMABUF_EXP_WAIT_RELEASED = ioNone(
  'G',
  10,
  ioctlGntdevDmabufExpWaitReleased.size,
);

export const ioctlGntdevDmabufImpToRefs = struct(
  'ioctl_gntdev_dmabuf_imp_to_refs',
  'Grants the pages of a dma-buf to a domain.',
  {
    fd: [0, u32, 'the dma-buf'],
    count: [4, u32, 'grant references in refs, one for each page'],
    domid: [8, u32, 'the domain that may map them'],
    reserved: [12, reserved(u32), 'zero'],
    refs: [16, tail(u32, 1), 'out: grant references'],
  },
);
export const IOCTL_GNTDEV_DMABUF_IMP_TO_REFS = ioNone('G', 11, ioctlGntdevDmabufImpToRefs.size);

export const ioctlGntdevDmabufImpRelease = struct(
  'ioctl_gntdev_dmabuf_imp_release',
  'Ends the grants that IMP_TO_REFS made.',
  {
    fd: [0, u32, 'the dma-buf'],
    reserved: [4, reserved(u32), 'zero'],
  },
);
export const IOCTL_GNTDEV_DMABUF_IMP_RELEASE = ioNone('G', 12, ioctlGntdevDmabufImpRelease.size);
