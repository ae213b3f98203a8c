// A domain's memory for buffers: frames asked of Xen, as they come or in one extent, alone or for a pool.
//
// Invariants: what Xen gave is in a pool, in a buffer, or was given back; a request that fails leaves
// nothing behind. An extent is rounded up to a power of 2 and its tail given back at once, as Linux does.

import assert from 'node:assert/strict';
import { SysError } from '../runtime/errors.ts';
import type { DomId } from '../xen/ids.ts';
import type { AllocateRequest, Memory } from '../xen/memory.ts';
import { type BufferHome, GuestBuffer } from './guest-buffer.ts';
import { GuestPool, type PoolOwner } from './guest-pool.ts';
import { type HypercallPort, MAX_BATCH, type WindowRef } from './hypercalls.ts';

export class GuestMemory implements Memory, PoolOwner {
  readonly #port: HypercallPort;
  readonly #pools = new Set<GuestPool>();
  readonly #buffers = new Set<GuestBuffer>();
  #stopped = false;

  constructor(port: HypercallPort) {
    this.#port = port;
  }

  async createPool({ domid, pages }: { domid: DomId; pages: number }): Promise<GuestPool> {
    const frames = await this.#singles(pages);
    const pool = new GuestPool(this, { domid, frames });
    this.#pools.add(pool);
    return pool;
  }

  async allocate({ pages, contiguity, addressBits = 0 }: AllocateRequest): Promise<GuestBuffer> {
    const frames =
      contiguity === 'none'
        ? await this.#singles(pages, addressBits)
        : await this.#extent(pages, addressBits);
    const giveUp = (back: Uint32Array) => this.giveUp(back);
    try {
      return await this.open(frames, giveUp);
    } catch (error) {
      await this.giveUp(frames);
      throw error;
    }
  }

  async open(frames: Uint32Array, takeBack: BufferHome['takeBack']): Promise<GuestBuffer> {
    if (frames.length > MAX_BATCH) throw tooLong(frames.length);
    const window = await this.#port.call('openWindow', { frames });
    const buffer = new GuestBuffer({ home: this.#home(takeBack), frames, window });
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
    assert(Number.isInteger(pages) && pages > 0, `allocating ${pages} pages`);
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

  /** Consecutive frames. @throws SysError ENOMEM, with nothing taken */
  async #extent(pages: number, addressBits: number): Promise<Uint32Array> {
    assert(Number.isInteger(pages) && pages > 0, `allocating ${pages} pages`);
    const extentOrder = Math.ceil(Math.log2(pages));
    const call = { extents: 1, extentOrder, addressBits };
    const { frames, reason } = await this.#port.call('increase', call);
    if (frames.length === 0) throw this.#noMemory(pages, reason);
    const extent = Uint32Array.from({ length: 2 ** extentOrder }, (_, page) => frames[0]! + page);
    await this.giveUp(extent.subarray(pages));
    return extent.slice(0, pages);
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
