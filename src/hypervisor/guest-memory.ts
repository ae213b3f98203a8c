// A domain's memory for buffers: frames asked of Xen, as they come or in one extent, alone or for a pool.
//
// Invariants: what Xen gave is in a pool, in a buffer, or was given back; a request that fails leaves
// nothing behind. An extent is rounded up to a power of 2 and its tail given back at once, as Linux does.

import assert from 'node:assert/strict';
import { SysError } from '../runtime/errors.ts';
import type { DomId } from '../xen/ids.ts';
import type { AllocateRequest, Memory } from '../xen/memory.ts';
import { unsupported } from '../xen/unsupported.ts';
import { contiguityOf } from './contiguity.ts';
import type { GuestBalloon } from './guest-balloon.ts';
import { type BufferHome, GuestBuffer } from './guest-buffer.ts';
import { GuestPool, type PoolOwner } from './guest-pool.ts';
import { type HypercallPort, MAX_BATCH, type WindowRef } from './hypercalls.ts';
import type { Iommu } from './iommu.ts';
import { expand } from './memory-operations.ts';

export interface MemoryOptions {
  readonly port: HypercallPort;
  /** The kernel's own memory. */
  readonly balloon: GuestBalloon;
  /** What this domain's devices are behind. */
  readonly iommu: Iommu | undefined;
}

/** Frames, and where they return to. */
interface Extent {
  readonly frames: Uint32Array;
  readonly takeBack: BufferHome['takeBack'];
}

export class GuestMemory implements Memory, PoolOwner {
  readonly #port: HypercallPort;
  readonly #balloon: GuestBalloon;
  readonly #iommu: Iommu | undefined;
  readonly #giveUp = (frames: Uint32Array) => this.giveUp(frames);
  readonly #pools = new Set<GuestPool>();
  readonly #buffers = new Set<GuestBuffer>();
  #stopped = false;

  constructor({ port, balloon, iommu }: MemoryOptions) {
    this.#port = port;
    this.#balloon = balloon;
    this.#iommu = iommu;
  }

  /** Pools that are open, or have pages out on loan. */
  get pools(): number {
    return this.#pools.size;
  }

  /** Buffers that are not freed, or of which somebody still uses pages. */
  get buffers(): number {
    return this.#buffers.size;
  }

  /** Devices attached to them. */
  get attachments(): number {
    return sum(this.#buffers, ({ attached }) => attached);
  }

  async createPool({ domid, pages }: { domid: DomId; pages: number }): Promise<GuestPool> {
    assert(Number.isInteger(pages) && pages > 0, `a pool of ${pages} pages`);
    const frames = await this.#singles(pages);
    const pool = new GuestPool(this, { domid, frames });
    this.#pools.add(pool);
    return pool;
  }

  async allocate({ pages, contiguity, addressBits = 0 }: AllocateRequest): Promise<GuestBuffer> {
    assert(Number.isInteger(pages) && pages > 0, `allocating ${pages} pages`);
    const scattered = contiguity === 'none' || (contiguity === 'device' && this.#iommu);
    const { frames, takeBack } = scattered
      ? { frames: await this.#singles(pages, addressBits), takeBack: this.#giveUp }
      : await this.#extent(pages, addressBits);
    try {
      return await this.open(frames, takeBack);
    } catch (error) {
      await takeBack(frames);
      throw error;
    }
  }

  async adopt(): Promise<never> {
    throw unsupported(
      'fstat',
      'a domain of the hypervisor in this process has no file descriptors',
    );
  }

  async open(frames: Uint32Array, takeBack: BufferHome['takeBack']): Promise<GuestBuffer> {
    if (frames.length > MAX_BATCH) throw tooLong(frames.length);
    const window = await this.#port.call('openWindow', { frames });
    const contiguity = contiguityOf(frames, this.#iommu);
    const home = this.#home(takeBack);
    const buffer = new GuestBuffer({ home, frames, window, contiguity });
    this.#buffers.add(buffer);
    return buffer;
  }

  async giveUp(frames: Uint32Array): Promise<void> {
    for (let done = 0; done < frames.length && !this.#stopped; done += MAX_BATCH) {
      const batch = frames.subarray(done, done + MAX_BATCH);
      const given = await this.#port.call('decrease', { frames: batch, extentOrder: 0 });
      assert.equal(given, batch.length, 'a frame of ours is not ours');
    }
  }

  forgetPool(pool: GuestPool): void {
    this.#pools.delete(pool);
  }

  /** Frees everything; what others still map stays with the domain until they let go or it is destroyed. */
  async close(): Promise<void> {
    for (const buffer of [...this.#buffers].reverse()) {
      buffer.stop();
      await buffer.free();
    }
    for (const pool of [...this.#pools].reverse()) await pool[Symbol.asyncDispose]();
    this.stop();
  }

  /** The domain is over: the hypervisor takes everything back. */
  stop(): void {
    this.#stopped = true;
    for (const buffer of this.#buffers) buffer.stop();
    this.#buffers.clear();
    this.#pools.clear();
  }

  #home(takeBack: BufferHome['takeBack']): BufferHome {
    const stopped = () => this.#stopped;
    return {
      domid: this.#port.domid,
      get stopped() {
        return stopped();
      },
      view: (window) => this.#port.view(window),
      closeView: (window, { viewed }) => this.#closeView(window, viewed),
      takeBack,
      forget: (buffer) => void this.#buffers.delete(buffer),
    };
  }

  async #closeView(window: WindowRef, viewed: boolean): Promise<void> {
    if (!viewed) this.#port.forgoView(window);
    await this.#port.call('closeWindow', { window: window.window });
  }

  /** Frames as they come. @throws SysError ENOMEM, with nothing taken */
  async #singles(pages: number, addressBits = 0): Promise<Uint32Array> {
    const frames = new Uint32Array(pages);
    for (let done = 0; done < pages; ) {
      const extents = Math.min(pages - done, MAX_BATCH);
      const call = { extents, extentOrder: 0, addressBits };
      const increased = await this.#port.call('increase', call);
      frames.set(increased.frames, done);
      done += increased.frames.length;
      if (increased.frames.length === extents) continue;
      await this.giveUp(frames.subarray(0, done));
      throw this.#noMemory(pages, increased.reason);
    }
    return frames;
  }

  /** Consecutive frames: new ones, else some that were scattered before. @throws SysError ENOMEM */
  async #extent(pages: number, addressBits: number): Promise<Extent> {
    const extentOrder = Math.ceil(Math.log2(pages));
    const call = { extents: 1, extentOrder, addressBits };
    const { frames, reason } = await this.#port.call('increase', call);
    if (frames.length > 0) {
      const extent = expand(frames, extentOrder);
      await this.giveUp(extent.subarray(pages));
      return { frames: extent.slice(0, pages), takeBack: this.#giveUp };
    }
    const exchanged = await this.#balloon.exchange(extentOrder, addressBits);
    if (!exchanged) throw this.#noMemory(pages, reason);
    const takeBack = async (back: Uint32Array) => this.#balloon.putBack(back);
    await takeBack(exchanged.subarray(pages));
    return { frames: exchanged.slice(0, pages), takeBack };
  }

  #noMemory(pages: number, reason: string): SysError {
    return new SysError({
      call: 'XENMEM_populate_physmap',
      errnoName: 'ENOMEM',
      context: `${pages} pages for domain ${this.#port.domid}: ${reason}`,
      remedy: 'give the domain or the machine more memory',
    });
  }
}

function tooLong(pages: number): SysError {
  return new SysError({
    call: 'mmap',
    errnoName: 'EINVAL',
    context: `a buffer of ${pages} pages, where ${MAX_BATCH} are the limit`,
  });
}

function sum<T>(all: Iterable<T>, number: (one: T) => number): number {
  return [...all].reduce((total, one) => total + number(one), 0);
}
