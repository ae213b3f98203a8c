// linux/dma-heap.h: /dev/dma_heap/NAME, which allocates dma-bufs.
import { ioReadWrite } from './ioctl.ts';
import { struct, u32, u64 } from './layout.ts';

export const dmaHeapAllocationData = struct('dma_heap_allocation_data', 'Allocates a dma-buf.', {
  len: [0, u64, 'bytes'],
  fd: [8, u32, 'out: the dma-buf'],
  fd_flags: [12, u32, 'O_CLOEXEC, O_RDONLY, O_WRONLY, O_RDWR'],
  heap_flags: [16, u64, 'none is defined: zero'],
});
export const DMA_HEAP_IOCTL_ALLOC = ioReadWrite('H', 0, dmaHeapAllocationData.size);
