// A domain's own side of its grant table, as a kernel has it: free references, entries made and ended,
// and the pages that others still map when we want them back.
//
// Invariants:
// - An entry is written frame first, then domid and flags in one store: it is never valid half-written.
// - Access ends by compare-and-swap, and only when neither GTF_reading nor GTF_writing is set (XSA-396);
//   until then reference and page stay out of use, and are tried again at a bounded pace.

import assert from 'node:assert/strict';
import {
  GNTTAB_NR_RESERVED_ENTRIES,
  GTF_permit_access,
  GTF_reading,
  GTF_readonly,
  GTF_writing,
} from '../abi/grant-table.ts';
import { SysError } from '../runtime/errors.ts';
import type { Runtime, Timer } from '../runtime/runtime.ts';
import type { Grants, LendRequest, LentPages, SharedPages, ShareRequest } from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import type { GivenBack } from '../xen/memory.ts';
import { GRANTS_PER_FRAME, WORDS_PER_GRANT, wordsOf } from './grant-table.ts';
import { GuestBuffer } from './guest-buffer.ts';
import { GuestLentPages } from './guest-lending.ts';
import type { HypercallPort, HypercallResult, WindowRef } from './hypercalls.ts';

/** How often pages that somebody still maps are tried again, and how many each time. */
const DEFERRED_RETRY_MS = 500;
const DEFERRED_PER_RETRY = 1024;
/** Times that the hypervisor may change an entry while we end it; each is a map or unmap of it. */
const MAX_END_TRIES = 16;

/** A page of ours that another domain may map. */
export interface GrantedPage {
  readonly ref: Gref;
  readonly frame: number;
}

export class GuestGrants implements Grants {
  readonly #port: HypercallPort;
  readonly #runtime: Runtime;
  readonly #words: Uint32Array;
  readonly #free: number[] = [];
  readonly #shared = new Set<GuestSharedPages>();
  readonly #lent = new Set<GuestLentPages>();
  readonly #deferred: GrantedPage[] = [];
  #frames = 0;
  #retry: Timer | undefined;
  #stopped = false;

  constructor(port: HypercallPort, runtime: Runtime) {
    this.#port = port;
    this.#runtime = runtime;
    this.#words = wordsOf(port.grantTable);
    this.#addFrames(1);
  }

  /** Pages that we want back and others still map. */
  get deferredPages(): number {
    return this.#deferred.length;
  }

  /** Loans with grants that have not ended. */
  get loans(): number {
    return this.#lent.size;
  }

  async share(request: ShareRequest): Promise<SharedPages> {
    const { domid, pages, writable } = request;
    assert(Number.isInteger(pages) && pages > 0, `sharing ${pages} pages`);
    const refs = await this.#takeRefs(pages);
    try {
      const { own, bytes } = await this.#populate(pages);
      for (let page = 0; page < pages; page++) {
        this.#grant({ ref: refs[page]!, frame: own.frames[page]! }, { domid, writable });
      }
      const shared = new GuestSharedPages(this, { own, request, refs, bytes });
      this.#shared.add(shared);
      return shared;
    } catch (error) {
      this.#free.push(...refs);
      throw error;
    }
  }

  async lend({ domid, buffer, writable }: LendRequest): Promise<LentPages> {
    assert(buffer instanceof GuestBuffer, 'only memory of this hypervisor can be lent');
    assert(buffer.domid === this.#port.domid, `the buffer belongs to domain ${buffer.domid}`);
    const refs = await this.#takeRefs(buffer.pages);
    if (buffer.freed) {
      this.#free.push(...refs);
      assert.fail('lending a buffer that was freed');
    }
    const pages = refs.map((ref, page) => ({ ref, frame: buffer.frames[page]! }));
    for (const page of pages) this.#grant(page, { domid, writable });
    const lent = new GuestLentPages({ grants: this, buffer, domid, writable, pages });
    this.#lent.add(lent);
    return lent;
  }

  /** Ends access to lent pages. @returns those that the other domain still maps, which stay granted */
  endLent(lent: GuestLentPages, pages: readonly GrantedPage[]): readonly GrantedPage[] {
    if (this.#stopped) return [];
    const held: GrantedPage[] = [];
    for (const page of pages) {
      if (this.#tryEnd(page.ref)) this.#free.push(page.ref);
      else held.push(page);
    }
    if (held.length === 0) this.#lent.delete(lent);
    return held;
  }

  /** Closes our window over shared pages. */
  async closeWindow(window: WindowRef): Promise<void> {
    if (!this.#stopped) await this.#port.call('closeWindow', { window: window.window });
  }

  /** Ends access to shared pages. @returns those that the other domain still maps, which stay granted */
  async endShared(
    shared: GuestSharedPages,
    pages: readonly GrantedPage[],
  ): Promise<readonly GrantedPage[]> {
    if (this.#stopped) return [];
    const { ended, held } = this.#endAll(pages);
    if (held.length === 0) this.#shared.delete(shared);
    if (ended.length > 0) await this.#port.call('decrease', { frames: ended, extentOrder: 0 });
    return held;
  }

  /** Pages that are given up while the other domain maps them: ended when it has let go. */
  defer(shared: GuestSharedPages, pages: readonly GrantedPage[]): void {
    this.#shared.delete(shared);
    if (this.#stopped || pages.length === 0) return;
    this.#deferred.push(...pages);
    this.#scheduleRetry();
  }

  /** Before the ports are closed that peers are told by. */
  sayFarewells(): void {
    for (const shared of this.#shared) shared.sayFarewell();
  }

  /** Ends access to everything that is shared. */
  async close(): Promise<void> {
    for (const shared of [...this.#shared].reverse()) await shared[Symbol.asyncDispose]();
    for (const lent of [...this.#lent].reverse()) lent.endNow();
    this.stop();
  }

  /** The domain is over: the hypervisor takes everything back. */
  stop(): void {
    this.#stopped = true;
    this.#retry?.cancel();
    this.#deferred.length = 0;
    this.#shared.clear();
    this.#lent.clear();
  }

  /** New pages, with a view of them or not at all. @throws SysError ENOMEM */
  async #populate(pages: number): Promise<{ own: HypercallResult<'populate'>; bytes: Uint8Array }> {
    const own = await this.#port.call('populate', { pages });
    try {
      return { own, bytes: this.#port.view(own) };
    } catch (error) {
      this.#port.forgoView(own);
      await this.#port.call('closeWindow', { window: own.window });
      await this.#port.call('decrease', { frames: own.frames, extentOrder: 0 });
      throw error;
    }
  }

  async #takeRefs(count: number): Promise<Gref[]> {
    const missing = count - this.#free.length;
    if (missing > 0) {
      const frames = this.#frames + Math.ceil(missing / GRANTS_PER_FRAME);
      if (frames > this.#port.maxGrantFrames) throw this.#noEntries(count);
      await this.#port.call('setupGrantTable', { frames });
      this.#addFrames(frames);
    }
    // Somebody else may have taken references while we waited for the hypervisor.
    if (this.#free.length < count) return this.#takeRefs(count);
    return this.#free.splice(this.#free.length - count).reverse() as Gref[];
  }

  #noEntries(count: number): SysError {
    return new SysError({
      call: 'GNTTABOP_setup_table',
      errnoName: 'ENOSPC',
      context: `${count} grant entries for domain ${this.#port.domid}, which has ${this.#free.length} free and ${this.#port.maxGrantFrames} pages of table at most`,
      remedy: 'raise max_grant_frames of the domain',
    });
  }

  /** The table has become `frames` pages long: its new entries are free, lowest first. */
  #addFrames(frames: number): void {
    const first = Math.max(GNTTAB_NR_RESERVED_ENTRIES, this.#frames * GRANTS_PER_FRAME);
    const added: number[] = [];
    for (let ref = frames * GRANTS_PER_FRAME - 1; ref >= first; ref--) added.push(ref);
    this.#free.unshift(...added);
    this.#frames = Math.max(frames, this.#frames);
  }

  #grant({ ref, frame }: GrantedPage, to: { domid: DomId; writable: boolean }): void {
    const flags = GTF_permit_access | (to.writable ? 0 : GTF_readonly);
    Atomics.store(this.#words, ref * WORDS_PER_GRANT + 1, frame);
    Atomics.store(this.#words, ref * WORDS_PER_GRANT, (flags | (to.domid << 16)) >>> 0);
  }

  /** Makes the entry invalid; false while somebody maps it. */
  #tryEnd(ref: Gref): boolean {
    const word = ref * WORDS_PER_GRANT;
    let seen = Atomics.load(this.#words, word);
    for (let attempt = 0; attempt < MAX_END_TRIES; attempt++) {
      if ((seen & (GTF_reading | GTF_writing)) !== 0) return false;
      const before = Atomics.compareExchange(this.#words, word, seen, 0);
      if (before === seen) return true;
      seen = before;
    }
    return false;
  }

  /** Ends what can be ended: the frames that are ours alone again, and the pages that are not. */
  #endAll(pages: readonly GrantedPage[]): { ended: Uint32Array; held: GrantedPage[] } {
    const frames: number[] = [];
    const held: GrantedPage[] = [];
    for (const page of pages) {
      if (this.#tryEnd(page.ref)) {
        this.#free.push(page.ref);
        frames.push(page.frame);
      } else {
        held.push(page);
      }
    }
    return { ended: Uint32Array.from(frames), held };
  }

  #scheduleRetry(): void {
    this.#retry ??= this.#runtime.after(DEFERRED_RETRY_MS, () => {
      this.#retry = undefined;
      if (this.#stopped) return;
      const { ended: frames, held } = this.#endAll(this.#deferred.splice(0, DEFERRED_PER_RETRY));
      this.#deferred.push(...held);
      if (this.#deferred.length > 0) this.#scheduleRetry();
      if (frames.length === 0) return;
      this.#port.call('decrease', { frames, extentOrder: 0 }).catch((error: unknown) => {
        this.#runtime.log.warn({ err: error, pages: frames.length }, 'ended grants were not freed');
      });
    });
  }
}

interface GrantedWindow {
  readonly refs: readonly Gref[];
  readonly own: WindowRef & { readonly frames: Uint32Array };
}

class GuestSharedPages implements SharedPages {
  readonly domid: DomId;
  readonly writable: boolean;
  readonly refs: readonly Gref[];
  readonly #grants: GuestGrants;
  readonly #own: WindowRef;
  #farewell: ShareRequest['farewell'];
  /** Pages whose grants have not ended. */
  #granted: readonly GrantedPage[];
  #bytes: Uint8Array | undefined;
  #closed: Promise<void> | undefined;
  #ending: Promise<void> = Promise.resolve();

  constructor(
    grants: GuestGrants,
    made: GrantedWindow & { readonly request: ShareRequest; readonly bytes: Uint8Array },
  ) {
    this.#grants = grants;
    this.domid = made.request.domid;
    this.writable = made.request.writable;
    this.refs = made.refs;
    this.#own = made.own;
    this.#farewell = made.request.farewell;
    this.#granted = made.refs.map((ref, page) => ({ ref, frame: made.own.frames[page]! }));
    this.#bytes = made.bytes;
  }

  /** @throws AssertionError once the pages are given up */
  get bytes(): Uint8Array {
    assert(this.#bytes, 'use of shared pages that were given up');
    return this.#bytes;
  }

  async end(): Promise<GivenBack> {
    this.#ending = this.#ending.then(() => this.#end());
    await this.#ending;
    return { heldPages: this.#granted.length, evidence: 'grant table' };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    this.#grants.defer(this, this.#granted);
    this.#granted = [];
  }

  async #end(): Promise<void> {
    this.#closed ??= this.#closeView();
    await this.#closed;
    this.#granted = await this.#grants.endShared(this, this.#granted);
  }

  sayFarewell(): void {
    const farewell = this.#farewell;
    this.#farewell = undefined;
    if (farewell === undefined) return;
    this.bytes[farewell.byte] = 0;
    farewell.channel.notify();
  }

  async #closeView(): Promise<void> {
    this.sayFarewell();
    this.#bytes = undefined;
    await this.#grants.closeWindow(this.#own);
  }
}
