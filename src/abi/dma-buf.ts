// linux/dma-buf.h: what can be done with any dma-buf's file descriptor.
import { ioReadWrite, ioWrite } from './ioctl.ts';
import { i32, pointer, struct, u32, u64 } from './layout.ts';

export const DMA_BUF_SYNC_READ = 1 << 0;
export const DMA_BUF_SYNC_WRITE = 2 << 0;
export const DMA_BUF_SYNC_RW = DMA_BUF_SYNC_READ | DMA_BUF_SYNC_WRITE;
export const DMA_BUF_SYNC_START = 0 << 2;
export const DMA_BUF_SYNC_END = 1 << 2;
export const DMA_BUF_SYNC_VALID_FLAGS_MASK = DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END;

export const dmaBufSync = struct('dma_buf_sync', 'Begins or ends access by the CPU.', {
  flags: [0, u64, 'DMA_BUF_SYNC_*: START or END, with READ, WRITE or RW'],
});
export const DMA_BUF_IOCTL_SYNC = ioWrite('b', 0, dmaBufSync.size);

/** Bytes of a name, the NUL included. */
export const DMA_BUF_NAME_LEN = 32;
export const DMA_BUF_SET_NAME = ioWrite('b', 1, pointer.size);
export const DMA_BUF_SET_NAME_A = ioWrite('b', 1, u32.size);
export const DMA_BUF_SET_NAME_B = ioWrite('b', 1, u64.size);

export const dmaBufExportSyncFile = struct(
  'dma_buf_export_sync_file',
  'Makes a file that tells when the present users of the buffer are done.',
  {
    flags: [0, u32, 'DMA_BUF_SYNC_READ: wait for writers; DMA_BUF_SYNC_WRITE: for all'],
    fd: [4, i32, 'out: the sync file'],
  },
);
export const DMA_BUF_IOCTL_EXPORT_SYNC_FILE = ioReadWrite('b', 2, dmaBufExportSyncFile.size);

export const dmaBufImportSyncFile = struct(
  'dma_buf_import_sync_file',
  'Makes later users of the buffer wait for a file.',
  {
    flags: [0, u32, 'DMA_BUF_SYNC_READ: writers wait; DMA_BUF_SYNC_WRITE: all'],
    fd: [4, i32, 'the sync file'],
  },
);
export const DMA_BUF_IOCTL_IMPORT_SYNC_FILE = ioWrite('b', 3, dmaBufImportSyncFile.size);
