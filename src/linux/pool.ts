// Memory set aside for one guest: a memfd with all its pages, the reserve, that nobody ever maps. What is lent
// out of the pool is a memfd of its own, for which as many pages of the reserve are given up; when it has
// come back, the reserve takes as many again.
//
// Invariants:
// - reserve + lent out + what could not be taken again yet = the size of the pool.
// - The reserve's pages lie at its beginning, [0, freePages).
// - Changes of the reserve that wait go one after the other.
// - Of one guest's buffers one at a time is tried for the seal: a try that fails keeps a thread for some 150 ms,
//   and a guest that keeps many buffers must not keep the threads from the others.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../abi/page.ts';
import { allocatePages, close, punchHole } from '../posix/libc.ts';
import { SysError } from '../runtime/errors.ts';
import type { DomId } from '../xen/ids.ts';
import type { LocalBuffer, MemoryPool } from '../xen/memory.ts';
import type { LinuxBuffer } from './linux-buffer.ts';
import { filledMemfd, MEMORY_REMEDY, memfdBuffer, type Turn } from './memfd-buffer.ts';
import type { Udmabuf } from './udmabuf.ts';

/** Left to the rest of the domain, 64 MiB: a memfd takes pages until the kernel ends processes. */
const SPARE_PAGES = (64 * 1024 * 1024) / PAGE_SIZE;

export interface PoolRequest {
  readonly domid: DomId;
  readonly pages: number;
  readonly udmabuf: Udmabuf;
  /** Told of every buffer out of the pool. */
  readonly onBuffer: (buffer: LinuxBuffer) => void;
}

export class MemfdPool implements MemoryPool {
  readonly pages: number;
  readonly #domid: DomId;
  readonly #udmabuf: Udmabuf;
  readonly #onBuffer: (buffer: LinuxBuffer) => void;
  /** The file descriptor of the reserve. */
  readonly #reserve: number;
  #reserved: number;
  #lent = 0;
  #open = true;
  #refilling: Promise<void> | undefined;
  #sealing: Promise<unknown> = Promise.resolve();

  private constructor({ domid, pages, udmabuf, onBuffer }: PoolRequest, reserve: number) {
    this.pages = pages;
    this.#domid = domid;
    this.#udmabuf = udmabuf;
    this.#onBuffer = onBuffer;
    this.#reserve = reserve;
    this.#reserved = pages;
  }

  /** @throws SysError ENOMEM */
  static async create(request: PoolRequest): Promise<MemfdPool> {
    return new MemfdPool(request, await filledMemfd('xen-zcopy-pool', request.pages));
  }

  get freePages(): number {
    return this.#reserved;
  }

  get closed(): boolean {
    return !this.#open;
  }

  async allocate(pages: number): Promise<LocalBuffer> {
    assert(Number.isInteger(pages) && pages > 0, `a buffer of ${pages} pages`);
    assert(this.#open, 'use of a pool that is closed');
    await this.#refill();
    this.#take(pages);
    let gone = false;
    const onGone = async () => {
      assert(!gone, 'pages came back twice');
      gone = true;
      this.#lent -= pages;
      await this.#refill();
    };
    try {
      const buffer = await memfdBuffer({
        pages,
        udmabuf: this.#udmabuf,
        onGone,
        inTurn: this.#inTurn,
      });
      this.#onBuffer(buffer);
      return buffer;
    } catch (error) {
      await onGone();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#refilling;
    close(this.#reserve, { context: `giving up the pool of domain ${this.#domid}` });
    this.#reserved = 0;
  }

  /** Gives pages of the reserve up, for a buffer. @throws SysError ENOMEM */
  #take(pages: number): void {
    const context = `lending ${pages} pages of the pool of domain ${this.#domid}`;
    if (!this.#open || pages > this.#reserved) {
      const errnoName = 'ENOMEM';
      throw new SysError({
        call: `${this.#reserved} of ${this.pages} pages left`,
        errnoName,
        context,
      });
    }
    const offset = (this.#reserved - pages) * PAGE_SIZE;
    punchHole(this.#reserve, { offset, length: pages * PAGE_SIZE }, { context });
    this.#reserved -= pages;
    this.#lent += pages;
  }

  readonly #inTurn: Turn = (work) => {
    const turn = this.#sealing.then(work);
    this.#sealing = turn.catch(() => undefined);
    return turn;
  };

  /** Takes again what has come back; as much as the domain has. */
  #refill(): Promise<void> {
    this.#refilling = (this.#refilling ?? Promise.resolve()).then(() => this.#refillNow());
    return this.#refilling;
  }

  async #refillNow(): Promise<void> {
    const missing = this.pages - this.#lent - this.#reserved;
    if (!this.#open || missing === 0) return;
    const stretch = { offset: this.#reserved * PAGE_SIZE, length: missing * PAGE_SIZE };
    if (await allocatePages(this.#reserve, stretch)) this.#reserved += missing;
  }
}

/** @throws SysError ENOMEM when so many pages cannot be taken without hurting others */
export function requirePages(pages: number, available: number): void {
  if (pages + SPARE_PAGES <= available) return;
  throw new SysError({
    call: 'reading MemAvailable of /proc/meminfo',
    errnoName: 'ENOMEM',
    context: `${pages} pages are asked for, ${Math.max(0, available - SPARE_PAGES)} can be had`,
    remedy: MEMORY_REMEDY,
  });
}
