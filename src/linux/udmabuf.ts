// Dma-bufs of a memfd's pages by /dev/udmabuf (linux/udmabuf.h).
//
// Invariants:
// - The memfd is sealed against shrinking and growing, and not against writing, before it comes here.
// - What is larger than the module allows for one dma-buf, or than one dma-buf can lend, becomes several in
//   a row; all of them are made or none.

import { PAGE_SIZE } from '../abi/page.ts';
import { UDMABUF_CREATE, UDMABUF_FLAGS_CLOEXEC, udmabufCreate } from '../abi/udmabuf.ts';
import { close } from '../posix/libc.ts';
import type { DeviceFile } from './device.ts';
import { moduleParameter } from './kernel-facts.ts';
import { MAX_LENT_PAGES } from './lends.ts';
import type { DmaBufPart } from './linux-buffer.ts';

const DEFAULT_LIMIT_MB = 64;
const PAGES_PER_MB = (1024 * 1024) / PAGE_SIZE;
const LIMIT_REMEDY = 'see /sys/module/udmabuf/parameters/size_limit_mb';

/** Pages that the module allows for one dma-buf. */
export function udmabufLimit(): number {
  return moduleParameter('udmabuf', 'size_limit_mb', DEFAULT_LIMIT_MB) * PAGES_PER_MB;
}

export class Udmabuf implements Disposable {
  readonly #device: DeviceFile;
  readonly #maxPages: number;

  /** Owns `device`, an open /dev/udmabuf. `limit`: pages that one dma-buf may have. */
  constructor(device: DeviceFile, limit = udmabufLimit()) {
    this.#device = device;
    this.#maxPages = Math.max(1, Math.min(limit, MAX_LENT_PAGES));
  }

  /** Dma-bufs over all of a memfd; the caller closes them. @throws SysError */
  create(memfd: number, pages: number): DmaBufPart[] {
    const parts: DmaBufPart[] = [];
    try {
      for (let page = 0; page < pages; page += this.#maxPages) {
        const count = Math.min(this.#maxPages, pages - page);
        parts.push({ fd: this.#createOne(memfd, page, count), pages: count });
      }
      return parts;
    } catch (error) {
      closeDmaBufs(parts);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#device[Symbol.dispose]();
  }

  #createOne(memfd: number, page: number, count: number): number {
    const argument = new Uint8Array(udmabufCreate.size);
    udmabufCreate.write(new DataView(argument.buffer), 0, {
      memfd,
      flags: UDMABUF_FLAGS_CLOEXEC,
      offset: BigInt(page * PAGE_SIZE),
      size: BigInt(count * PAGE_SIZE),
    });
    return this.#device.ioctl(
      { name: 'UDMABUF_CREATE', number: UDMABUF_CREATE, argument },
      { context: `making a dma-buf of ${count} pages of a memfd`, remedy: LIMIT_REMEDY },
    );
  }
}

/** Closes our descriptors of dma-bufs. */
export function closeDmaBufs(parts: readonly DmaBufPart[]): void {
  for (const { fd, pages } of parts) close(fd, { context: `closing a dma-buf of ${pages} pages` });
}
