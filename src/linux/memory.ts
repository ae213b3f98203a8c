// Memory of this domain for drivers and other domains: memfds made dma-bufs by udmabuf, dma-heaps, and what others
// in this domain made. Which of them a request gets is decided here, and nothing is promised that cannot be shown.
//
// Invariant: of the same memory there is one buffer that is not freed, by whatever descriptor it comes.

import assert from 'node:assert/strict';
import { SysError } from '../runtime/errors.ts';
import type { DomId } from '../xen/ids.ts';
import type { AllocateRequest, LocalBuffer, Memory, MemoryPool } from '../xen/memory.ts';
import { unsupported } from '../xen/unsupported.ts';
import { adoptedBuffer } from './adopted-buffers.ts';
import { BUFFER_FILES, type BufferFiles } from './buffer-files.ts';
import { type OpenDevice, UDMABUF } from './device.ts';
import {
  CMA_REMEDY,
  type ConsecutivePages,
  consecutivePages,
  DmaHeaps,
  heapNames,
  PV_PAGES_REASON,
  SYSTEM_HEAP,
} from './dma-heaps.ts';
import { availablePages } from './kernel-facts.ts';
import type { LinuxBuffer } from './linux-buffer.ts';
import { memfdBuffer } from './memfd-buffer.ts';
import { MemfdPool, requirePages } from './pool.ts';
import { Udmabuf, udmabufLimit } from './udmabuf.ts';

/** No machine of Xen has physical addresses of more bits. */
const MAX_ADDRESS_BITS = 52;
const ADDRESS_REASON =
  'the frames of the machine are not known to user space, so no bound on their addresses can be promised';
const UDMABUF_CALL = 'ioctl UDMABUF_CREATE';

/** What of the host decides; all of it has defaults that ask the host. */
export interface MemoryParts {
  readonly open: OpenDevice;
  readonly heaps?: readonly string[];
  readonly consecutive?: ConsecutivePages;
  readonly udmabufLimit?: number;
  readonly availablePages?: () => number;
  readonly files?: BufferFiles;
}

export class LinuxMemory implements Memory, AsyncDisposable {
  readonly #open: OpenDevice;
  readonly #heapNames: readonly string[];
  readonly #heaps: DmaHeaps;
  readonly #consecutive: ConsecutivePages;
  readonly #udmabufLimit: number;
  readonly #availablePages: () => number;
  readonly #files: BufferFiles;
  /** Buffers of memory that others made, by the key of what was handed over. */
  readonly #adopted = new Map<string, LinuxBuffer>();
  #udmabuf: Udmabuf | undefined;
  #live: LinuxBuffer[] = [];
  #pools: MemfdPool[] = [];

  constructor(parts: MemoryParts) {
    this.#open = parts.open;
    this.#heapNames = parts.heaps ?? heapNames();
    this.#heaps = new DmaHeaps(parts.open, this.#heapNames);
    this.#consecutive = 'consecutive' in parts ? parts.consecutive : consecutivePages();
    this.#udmabufLimit = parts.udmabufLimit ?? udmabufLimit();
    this.#availablePages = parts.availablePages ?? availablePages;
    this.#files = parts.files ?? BUFFER_FILES;
  }

  async createPool({ domid, pages }: { domid: DomId; pages: number }): Promise<MemoryPool> {
    assert(Number.isInteger(pages) && pages > 0, `a pool of ${pages} pages`);
    const udmabuf = this.#openUdmabuf();
    requirePages(pages, this.#availablePages());
    const onBuffer = (buffer: LinuxBuffer) => void this.#remember(buffer);
    const pool = await MemfdPool.create({ domid, pages, udmabuf, onBuffer });
    this.#pools = this.#pools.filter(({ closed }) => !closed);
    this.#pools.push(pool);
    return pool;
  }

  async allocate({ pages, contiguity, addressBits }: AllocateRequest): Promise<LocalBuffer> {
    assert(Number.isInteger(pages) && pages > 0, `a buffer of ${pages} pages`);
    if (addressBits !== undefined && addressBits < MAX_ADDRESS_BITS) {
      throw unsupported('allocating below an address', ADDRESS_REASON);
    }
    if (contiguity === 'none') return this.#scattered(pages);
    const kind = this.#consecutive;
    if (kind === undefined) throw unsupported('DMA_HEAP_IOCTL_ALLOC', PV_PAGES_REASON);
    const heap = this.#heaps.cma;
    if (kind === 'device' && contiguity === 'host') {
      const reason = 'consecutive pages of this domain need not be so in the machine';
      throw unsupported('DMA_HEAP_IOCTL_ALLOC', reason, CMA_REMEDY);
    }
    const proof = `allocated from ${heap}`;
    return this.#remember(this.#heaps.allocate(heap, pages, { kind, proof }));
  }

  /** A memfd is sealed against shrinking, for good. */
  async adopt(fd: number): Promise<LocalBuffer> {
    const identity = this.#files.identify(fd);
    const known = this.#known(identity.key);
    if (known !== undefined) return known;
    const udmabuf = () => this.#openUdmabuf();
    const buffer = adoptedBuffer(fd, identity, { files: this.#files, udmabuf });
    this.#adopted.set(identity.key, buffer);
    return this.#remember(buffer);
  }

  /** Gives up pools and buffers, as far as nobody else has them, and closes the device. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const buffer of this.#live.splice(0)) await buffer.free();
    for (const pool of this.#pools.splice(0)) await pool[Symbol.asyncDispose]();
    this.#udmabuf?.[Symbol.dispose]();
    this.#udmabuf = undefined;
  }

  /** Remembers a buffer until its memory is gone. */
  #remember(buffer: LinuxBuffer): LinuxBuffer {
    this.#live = this.#live.filter(({ gone }) => !gone);
    this.#live.push(buffer);
    return buffer;
  }

  /** The buffer of this memory that is not freed: one that was handed over, or one whose dma-buf comes back. */
  #known(key: string): LinuxBuffer | undefined {
    for (const [each, { freed }] of this.#adopted) if (freed) this.#adopted.delete(each);
    const isOf = ({ fd }: LinuxBuffer) => fd !== undefined && this.#files.identify(fd).key === key;
    return this.#adopted.get(key) ?? this.#live.find(isOf);
  }

  async #scattered(pages: number): Promise<LocalBuffer> {
    requirePages(pages, this.#availablePages());
    try {
      return this.#remember(await memfdBuffer({ pages, udmabuf: this.#openUdmabuf() }));
    } catch (error) {
      const absent = error instanceof SysError && error.errnoName === 'EOPNOTSUPP';
      if (!absent || !this.#heapNames.includes(SYSTEM_HEAP)) throw error;
      const proof = `allocated from ${SYSTEM_HEAP}`;
      return this.#remember(this.#heaps.allocate(SYSTEM_HEAP, pages, { kind: 'none', proof }));
    }
  }

  /** @throws SysError EOPNOTSUPP where there is none */
  #openUdmabuf(): Udmabuf {
    if (this.#udmabuf !== undefined) return this.#udmabuf;
    try {
      this.#udmabuf = new Udmabuf(this.#open(UDMABUF), this.#udmabufLimit);
      return this.#udmabuf;
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      throw unsupported(UDMABUF_CALL, error.context, error.remedy);
    }
  }
}
