// Where a domain sees memory: windows, each a contiguous stretch of this process's addresses over frames
// of its own or over grants that it mapped.
//
// Invariants: a window holds one reference of each of its frames (by the grant's pin, for a foreign one);
// closing it revokes the view before anything is given back. The views of a domain in another thread are
// not seen by this thread's garbage collector, so its closed windows are parked: their addresses stay
// reserved until that thread says that it has dropped the view, or has ended.

import type { Mapping } from '../posix/mapping.ts';
import { SysError } from '../runtime/errors.ts';

/**
 * Windows of one domain, open or closed and still looked at: each takes entries of this process's memory
 * map, which all domains share (vm.max_map_count, 65530 by default).
 */
const MAX_WINDOWS = 8192;

export interface Window {
  readonly id: number;
  readonly mapping: Mapping;
  /** In the order of the pages; 0 where nothing is mapped. */
  readonly frames: Uint32Array;
  /** Maptrack handles in the same order; absent in a window over the domain's own frames. */
  readonly handles?: Uint32Array;
}

export class AddressSpace {
  readonly #windows = new Map<number, Window>();
  readonly #parked = new Map<number, Mapping>();
  /** Open windows of which the domain's thread has dropped its view already. */
  readonly #unseen = new Set<number>();
  readonly #parks: boolean;
  #lastId = 0;

  /** `otherThread`: the domain runs in another thread, which makes its own views of the addresses. */
  constructor({ otherThread }: { otherThread: boolean }) {
    this.#parks = otherThread;
  }

  get windows(): Iterable<Window> {
    return this.#windows.values();
  }

  get size(): number {
    return this.#windows.size;
  }

  get parked(): number {
    return this.#parked.size;
  }

  /** Asks for room for one more window. @throws SysError ENOMEM */
  reserve(): void {
    if (this.#windows.size + this.#parked.size < MAX_WINDOWS) return;
    throw new SysError({
      call: 'mmap',
      errnoName: 'ENOMEM',
      context: `${this.#windows.size} windows are open and ${this.#parked.size} closed ones still looked at`,
      remedy: 'share and map more pages at a time, and let go of closed views',
    });
  }

  add(window: Omit<Window, 'id'>): Window {
    const added = { id: ++this.#lastId, ...window };
    this.#windows.set(added.id, added);
    return added;
  }

  get(id: number): Window | undefined {
    return this.#windows.get(id);
  }

  /** Revokes the view; the caller gives back frames and handles. @throws SysError, with the window still open */
  close(window: Window): void {
    window.mapping[Symbol.dispose]();
    this.#windows.delete(window.id);
    if (!this.#unseen.delete(window.id)) this.park(window.id, window.mapping);
  }

  /** Revokes a view, keeping its addresses for as long as another thread may look at them. */
  park(id: number, mapping: Mapping): void {
    mapping[Symbol.dispose]();
    if (this.#parks) this.#parked.set(id, mapping);
  }

  /** The domain's thread has no view of a window any more. */
  viewDropped(id: number): void {
    if (this.#windows.has(id)) this.#unseen.add(id);
    else this.#parked.delete(id);
  }

  /** The domain's thread has ended. */
  allViewsDropped(): void {
    this.#parked.clear();
  }
}
