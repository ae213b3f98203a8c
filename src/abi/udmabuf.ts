// linux/udmabuf.h: /dev/udmabuf, which makes a dma-buf of pages of a memfd.
import { ioWrite } from './ioctl.ts';
import { reserved, struct, tail, u32, u64 } from './layout.ts';

export const UDMABUF_FLAGS_CLOEXEC = 1;

export const udmabufCreate = struct('udmabuf_create', 'Makes a dma-buf of one range.', {
  memfd: [0, u32, 'sealed against shrinking, not against writing'],
  flags: [4, u32, 'UDMABUF_FLAGS_*'],
  offset: [8, u64, 'bytes, whole pages'],
  size: [16, u64, 'bytes, whole pages'],
});
export const UDMABUF_CREATE = ioWrite('u', 0x42, udmabufCreate.size);

export const udmabufCreateItem = struct('udmabuf_create_item', 'One of several ranges.', {
  memfd: [0, u32, 'as in udmabuf_create'],
  __pad: [4, reserved(u32), 'zero'],
  offset: [8, u64, 'bytes, whole pages'],
  size: [16, u64, 'bytes, whole pages'],
});

export const udmabufCreateList = struct('udmabuf_create_list', 'Makes a dma-buf of ranges.', {
  flags: [0, u32, 'UDMABUF_FLAGS_*'],
  count: [4, u32, 'ranges in list'],
  list: [8, tail(udmabufCreateItem, 0), 'the ranges, in the order they are mapped'],
});
export const UDMABUF_CREATE_LIST = ioWrite('u', 0x43, udmabufCreateList.size);
