// A domain's balloon driver: the memory that its kernel has for itself, what of it was given back to Xen so
// that grants can be mapped in its place, and what Xen owes it (Linux's drivers/xen/balloon.c and
// mem-reservation.c, and gnttab_dma_alloc_pages of grant-table.c, which ours follows).
//
// Invariants: pages at hand, in use, given back and owed always make up the target; memory that Xen cannot
// give back at once makes the domain smaller by exactly that, is in the books, and is asked for again until
// it is there. One operation at a time.

import assert from 'node:assert/strict';
import { SysError } from '../runtime/errors.ts';
import type { Runtime, Timer } from '../runtime/runtime.ts';
import { type HypercallPort, MAX_BATCH } from './hypercalls.ts';
import { expand } from './memory-operations.ts';

/** How soon owed memory is asked for again, doubling up to the longest (as Linux's retry_delay). */
const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 32_000;

/** Pages of ours that are not ours at present, so that something else can be in their place. */
export interface GivenBackPages {
  readonly pages: number;
  /** Asks for them again; what Xen cannot give is owed. Idempotent. */
  restore(): Promise<void>;
}

export class GuestBalloon {
  readonly #port: HypercallPort;
  readonly #runtime: Runtime;
  /** Frames at hand. */
  #frames: number[] = [];
  #target = 0;
  #used = 0;
  #givenBack = 0;
  #retry: Timer | undefined;
  #retryMs = FIRST_RETRY_MS;
  #turn: Promise<unknown> = Promise.resolve();
  #stopped = false;

  constructor(port: HypercallPort, runtime: Runtime) {
    this.#port = port;
    this.#runtime = runtime;
  }

  /** Pages that the domain should have for itself. */
  get target(): number {
    return this.#target;
  }

  /** Pages at hand. */
  get pages(): number {
    return this.#frames.length;
  }

  /** Pages that grants are mapped in the place of. */
  get givenBackPages(): number {
    return this.#givenBack;
  }

  /** Pages by which the domain is smaller than it should be. */
  get deficit(): number {
    return this.#target - this.pages - this.#used - this.#givenBack;
  }

  /** Grows or shrinks the domain, as far as it goes now; what is missing is asked for until it is there. */
  setTarget(pages: number): Promise<void> {
    assert(Number.isInteger(pages) && pages >= 0, `a target of ${pages} pages`);
    return this.#inTurn(async () => {
      const used = this.#used + this.#givenBack;
      assert(pages >= used, `a target of ${pages} pages, where ${used} are in use`);
      this.#target = pages;
      await this.#settle();
    });
  }

  /**
   * Gives pages to Xen. Those that are not at hand are asked for first, and not kept afterwards.
   * @throws SysError ENOMEM, with everything as it was except for what Xen would not give again
   */
  giveBack(pages: number): Promise<GivenBackPages> {
    assert(Number.isInteger(pages) && pages > 0, `giving back ${pages} pages`);
    return this.#inTurn(async () => {
      const extra = Math.max(0, pages - this.pages);
      this.#target += extra;
      await this.#populate(extra);
      const given = this.pages < pages ? 0 : await this.#decrease(pages);
      this.#givenBack += given;
      const handle = this.#handle({ pages: given, extra });
      if (given === pages) return handle;
      await this.#restore({ pages: given, extra });
      throw new SysError({
        call: 'XENMEM_decrease_reservation',
        errnoName: 'ENOMEM',
        context: `${pages} pages of domain ${this.#port.domid} to map grants in the place of`,
        remedy: 'give the domain or the machine more memory',
      });
    });
  }

  /**
   * 2^order consecutive frames for as many of ours (XENMEM_exchange), which are in use until `putBack`.
   * @returns undefined when we have too few at hand, may not have one so large, or the machine has none
   */
  exchange(order: number, addressBits: number): Promise<Uint32Array | undefined> {
    return this.#inTurn(async () => {
      const size = 2 ** order;
      if (this.pages < size || size > MAX_BATCH || order > this.#port.maxExtentOrder)
        return undefined;
      const frames = Uint32Array.from(this.#frames.slice(-size));
      const call = { frames, inOrder: 0, outOrder: order, addressBits };
      const exchanged = await this.#port.call('exchange', call);
      if (exchanged.exchanged === 0) return undefined;
      this.#frames.length -= size;
      this.#used += size;
      return expand(exchanged.frames, order);
    });
  }

  /** Frames that `exchange` gave are at hand again. */
  putBack(frames: Uint32Array): void {
    this.#used -= frames.length;
    assert(this.#used >= 0, 'a balloon got back more than it gave');
    for (const frame of frames) this.#frames.push(frame);
  }

  /** Gives everything at hand up. */
  async close(): Promise<void> {
    if (!this.#stopped) await this.setTarget(this.#used + this.#givenBack);
    this.stop();
  }

  /** The domain is over: the hypervisor takes everything back. */
  stop(): void {
    this.#stopped = true;
    this.#retry?.cancel();
    this.#frames = [];
    this.#target = 0;
    this.#used = 0;
    this.#givenBack = 0;
  }

  #handle(stretch: Stretch): GivenBackPages {
    let restored: Promise<void> | undefined;
    return {
      pages: stretch.pages,
      restore: () => {
        restored ??= this.#inTurn(() => this.#restore(stretch));
        return restored;
      },
    };
  }

  async #restore({ pages, extra }: Stretch): Promise<void> {
    if (this.#stopped) return;
    this.#givenBack -= pages;
    // Pages that were not at hand before are not wanted back.
    this.#target -= extra;
    await this.#settle();
  }

  /** Towards the target, as far as it goes. */
  async #settle(): Promise<void> {
    if (this.deficit < 0) await this.#decrease(-this.deficit);
    else await this.#populate(this.deficit);
    if (this.deficit > 0) this.#scheduleRetry();
    else this.#retryMs = FIRST_RETRY_MS;
  }

  /** As many new frames of `pages` as Xen has. */
  async #populate(pages: number): Promise<void> {
    for (let missing = pages; missing > 0; ) {
      const extents = Math.min(missing, MAX_BATCH);
      const call = { extents, extentOrder: 0, addressBits: 0 };
      const { frames } = await this.#port.call('increase', call);
      for (const frame of frames) this.#frames.push(frame);
      if (frames.length < extents) return;
      missing -= extents;
    }
  }

  /** Gives up as many pages at hand as Xen takes. @returns how many */
  async #decrease(pages: number): Promise<number> {
    assert(pages <= this.pages, `giving up ${pages} of ${this.pages} pages`);
    let done = 0;
    while (done < pages) {
      const frames = Uint32Array.from(this.#frames.splice(-Math.min(pages - done, MAX_BATCH)));
      const taken = await this.#port.call('decrease', { frames, extentOrder: 0 });
      done += taken;
      if (taken === frames.length) continue;
      for (const frame of frames.subarray(taken)) this.#frames.push(frame);
      break;
    }
    return done;
  }

  #scheduleRetry(): void {
    if (this.#retry || this.#stopped) return;
    const { log } = this.#runtime;
    log.warn({ domid: this.#port.domid, pages: this.deficit }, 'Xen owes the domain memory');
    this.#retry = this.#runtime.after(this.#retryMs, () => {
      this.#retry = undefined;
      this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS);
      this.#inTurn(() => this.#settle()).catch((error: unknown) => {
        if (!this.#stopped) log.warn({ err: error }, 'asking for owed memory failed');
      });
    });
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(task);
    this.#turn = result.catch(() => {});
    return result;
  }
}

interface Stretch {
  readonly pages: number;
  /** Of these, pages that were not at hand before. */
  readonly extra: number;
}
