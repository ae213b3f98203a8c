// Our view of a dma-buf, between the begin and the end of access by the processor (DMA_BUF_IOCTL_SYNC of
// linux/dma-buf.h), so that caches and devices agree about what is in it.
//
// Invariant: access begins after the view is there, and ends after it is revoked.

import {
  DMA_BUF_IOCTL_SYNC,
  DMA_BUF_SYNC_END,
  DMA_BUF_SYNC_RW,
  DMA_BUF_SYNC_START,
  dmaBufSync,
} from '../abi/dma-buf.ts';
import { Mapping } from '../posix/mapping.ts';
import type { BufferFile } from './buffer-files.ts';
import type { BufferView } from './linux-buffer.ts';

export class SyncedView implements BufferView {
  readonly #file: Pick<BufferFile, 'fd' | 'ioctl'>;
  readonly #mapping: Mapping;

  /** @throws SysError where the driver gives no view */
  constructor(file: Pick<BufferFile, 'fd' | 'ioctl'>, pages: number) {
    this.#file = file;
    this.#mapping = new Mapping(pages, { fd: file.fd, offset: 0, writable: true });
    try {
      this.#sync(DMA_BUF_SYNC_START);
    } catch (error) {
      this.#mapping[Symbol.dispose]();
      throw error;
    }
  }

  get bytes(): Uint8Array {
    return this.#mapping.bytes;
  }

  [Symbol.dispose](): void {
    if (this.#mapping.closed) return;
    this.#mapping[Symbol.dispose]();
    this.#sync(DMA_BUF_SYNC_END);
  }

  #sync(phase: number): void {
    const argument = new Uint8Array(dmaBufSync.size);
    const flags = BigInt(phase | DMA_BUF_SYNC_RW);
    dmaBufSync.write(new DataView(argument.buffer), 0, { flags });
    const request = { name: 'DMA_BUF_IOCTL_SYNC', number: DMA_BUF_IOCTL_SYNC, argument };
    this.#file.ioctl(request, { context: 'beginning or ending access to a dma-buf' });
  }
}
