// xen/gntalloc.h of Linux (linux-libc-dev): /dev/xen/gntalloc, which hands out new pages that are
// granted to another domain. The actions of SET_UNMAP_NOTIFY are in gntdev.ts.
import { ioNone } from './ioctl.ts';
import { struct, tail, u16, u32, u64 } from './layout.ts';

/** The other domain may write to the pages. */
export const GNTALLOC_FLAG_WRITABLE = 1;

export const ioctlGntallocAllocGref = struct(
  'ioctl_gntalloc_alloc_gref',
  'Allocates pages, grants them, and reserves a range of the device file for mmap().',
  {
    domid: [0, u16, 'the domain that may map them'],
    flags: [2, u16, 'GNTALLOC_FLAG_*'],
    count: [4, u32, 'pages'],
    index: [8, u64, 'out: the offset for mmap()'],
    gref_ids: [16, tail(u32, 1), 'out: grant references, one for each page'],
  },
);
export const IOCTL_GNTALLOC_ALLOC_GREF = ioNone('G', 5, ioctlGntallocAllocGref.size);

export const ioctlGntallocDeallocGref = struct(
  'ioctl_gntalloc_dealloc_gref',
  'Ends grants; each page is freed once neither side maps it.',
  {
    index: [0, u64, 'as ALLOC_GREF gave it'],
    count: [8, u32, 'pages'],
  },
);
export const IOCTL_GNTALLOC_DEALLOC_GREF = ioNone('G', 6, ioctlGntallocDeallocGref.size);

export const ioctlGntallocUnmapNotify = struct(
  'ioctl_gntalloc_unmap_notify',
  'What happens when a page is unmapped, even because the process died.',
  {
    index: [0, u64, 'offset in the device file of the byte to clear'],
    action: [8, u32, 'UNMAP_NOTIFY_*'],
    event_channel_port: [12, u32, 'the port to send to'],
  },
);
export const IOCTL_GNTALLOC_SET_UNMAP_NOTIFY = ioNone('G', 7, ioctlGntallocUnmapNotify.size);
