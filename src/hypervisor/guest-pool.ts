// Frames set aside for one guest (law 3): taken from Xen when the pool is made, lent out of it, and back
// in it when nobody maps them any more.
//
// Invariants: free and lent frames make up the pool; a frame that comes back while a grant of it lives does
// not exist (the buffer keeps it); every page is zero when it is lent, whoever had it before.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../abi/page.ts';
import { SysError } from '../runtime/errors.ts';
import type { DomId } from '../xen/ids.ts';
import type { MemoryPool } from '../xen/memory.ts';
import { FrameAllocator, framesOf, runsOf } from './frame-allocator.ts';
import type { BufferHome, GuestBuffer } from './guest-buffer.ts';

/** What a pool needs of its domain's memory. */
export interface PoolOwner {
  /** A buffer over frames, which returns to `takeBack`. @throws SysError, with nothing done */
  open(frames: Uint32Array, takeBack: BufferHome['takeBack']): Promise<GuestBuffer>;
  /** Gives frames back to Xen. */
  giveUp(frames: Uint32Array): Promise<void>;
  /** Nothing of the pool is left. */
  forgetPool(pool: GuestPool): void;
}

export class GuestPool implements MemoryPool {
  readonly domid: DomId;
  readonly pages: number;
  readonly #owner: PoolOwner;
  readonly #free = new FrameAllocator();
  /** Frames that were lent before, and so may hold something. */
  readonly #used = new Set<number>();
  #lent = 0;
  #closed: Promise<void> | undefined;

  constructor(owner: PoolOwner, { domid, frames }: { domid: DomId; frames: Uint32Array }) {
    this.#owner = owner;
    this.domid = domid;
    this.pages = frames.length;
    this.#put(frames);
  }

  get freePages(): number {
    return this.#free.free;
  }

  /** Frames out on loan: lent and not back. */
  get lentPages(): number {
    return this.#lent;
  }

  async allocate(pages: number): Promise<GuestBuffer> {
    assert(!this.#closed, 'use of a closed pool');
    const extents = this.#free.allocate(pages);
    if (!extents) throw this.#exhausted(pages);
    const frames = framesOf(extents);
    this.#lent += pages;
    try {
      const buffer = await this.#owner.open(frames, (back) => this.#takeBack(back));
      this.#scrub(buffer);
      return buffer;
    } catch (error) {
      await this.#takeBack(frames);
      throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const pages = this.freePages;
    const extents = pages > 0 ? this.#free.allocate(pages)! : [];
    if (pages > 0) await this.#owner.giveUp(framesOf(extents));
    if (this.#lent === 0) this.#owner.forgetPool(this);
  }

  /** Frames of a freed loan; a closed pool passes them on. */
  async #takeBack(frames: Uint32Array): Promise<void> {
    this.#lent -= frames.length;
    assert(this.#lent >= 0, 'a pool got back more than it lent');
    if (this.#closed) {
      await this.#owner.giveUp(frames);
      if (this.#lent === 0) this.#owner.forgetPool(this);
    } else {
      this.#put(frames);
    }
  }

  #put(frames: Uint32Array): void {
    for (const run of runsOf(frames.slice().sort())) this.#free.release(run);
  }

  /** Zeroes what was used before; what comes from Xen is zero. */
  #scrub(buffer: GuestBuffer): void {
    for (const [page, frame] of buffer.frames.entries()) {
      const used = this.#used.has(frame);
      this.#used.add(frame);
      if (used) buffer.bytes.fill(0, page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    }
  }

  #exhausted(pages: number): SysError {
    return new SysError({
      call: 'pool allocation',
      errnoName: 'ENOMEM',
      context: `${pages} pages for domain ${this.domid}, of whose ${this.pages} pages ${this.freePages} are free`,
      remedy: 'give the guest a larger pool, or have it release buffers',
    });
  }
}
