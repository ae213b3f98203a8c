// Where a domain sees memory: windows, each a contiguous stretch of this process's addresses over frames
// of its own or over grants that it mapped.
//
// Invariants: a window holds one reference of each of its frames (by the grant's pin, for a foreign one);
// closing it revokes the view before anything is given back. The views of a domain in another thread are
// not seen by this thread's garbage collector, so its closed windows are parked: their addresses stay
// reserved until that thread says that it has dropped the view, or has ended. A domain in another process
// maps the frames itself, and revokes its view before it asks for a window to be closed.

import { Mapping } from '../posix/mapping.ts';
import { SysError } from '../runtime/errors.ts';
import { type Run, runsOf, wholeRun } from './frame-allocator.ts';
import { type MachineMemory, mapFrames } from './machine-memory.ts';

/**
 * Windows of one domain, open or closed and still looked at: each takes entries of this process's memory
 * map, which all domains share (vm.max_map_count, 65530 by default).
 */
const MAX_WINDOWS = 8192;

/** Runs of frames that are shown in one go: each takes a system call, of some 5 to 10 µs. */
const RUNS_PER_TURN = 64;

/** Where a domain's code runs, and so who looks at its windows. */
export type Viewer = 'this-thread' | 'other-thread' | 'other-process';

export interface Window {
  readonly id: number;
  /** Undefined for devices alone, and when the domain is in another process, whose view is not ours. */
  readonly mapping?: Mapping | undefined;
  /** In the order of the pages; 0 where nothing is mapped. */
  readonly frames: Uint32Array;
  /** Maptrack handles in the same order; absent in a window over the domain's own frames. */
  readonly handles?: Uint32Array | undefined;
}

/** A window that is shown in turns, the rest of it not yet. */
interface Unfinished {
  readonly mapping: Mapping;
  readonly runs: Iterator<Run>;
  readonly writable: boolean;
}

export class AddressSpace {
  readonly #windows = new Map<number, Window>();
  readonly #parked = new Map<number, Mapping>();
  /** Open windows of which the domain's thread has dropped its view already. */
  readonly #unseen = new Set<number>();
  readonly #unfinished = new Map<number, Unfinished>();
  readonly #viewer: Viewer;
  #lastId = 0;

  constructor(viewer: Viewer) {
    this.#viewer = viewer;
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

  /** Frames in their order, where this process has to show them. @throws SysError, with nothing left behind */
  show(memory: MachineMemory, frames: Uint32Array, writable: boolean): Mapping | undefined {
    return this.#viewer === 'other-process' ? undefined : mapFrames(memory, frames, writable);
  }

  /** How many runs frames are in, as far as this process has to show them. */
  areasOf(frames: Uint32Array): number {
    if (this.#viewer === 'other-process') return 0;
    let areas = 0;
    for (const _run of runsOf(frames)) areas += 1;
    return areas;
  }

  /** A window that shows nothing yet, unless it takes one call: `showMore` shows the rest. @throws SysError */
  addUnshown(
    memory: MachineMemory,
    { frames, handles }: Omit<Window, 'id' | 'mapping'>,
    writable: boolean,
  ): Window {
    if (this.#viewer === 'other-process') return this.add({ frames, handles });
    const run = wholeRun(frames);
    if (run) return this.add({ mapping: memory.mapRun(run, writable), frames, handles });
    const mapping = new Mapping(frames.length);
    const added = this.add({ mapping, frames, handles });
    this.#unfinished.set(added.id, { mapping, runs: runsOf(frames), writable });
    return added;
  }

  /** Shows some more of a window. @returns whether that was all. @throws SysError, with the window still open */
  showMore(memory: MachineMemory, id: number): boolean {
    const unfinished = this.#unfinished.get(id);
    if (!unfinished) return true;
    const { mapping, runs, writable } = unfinished;
    for (let left = RUNS_PER_TURN; left > 0; left--) {
      const { done, value: run } = runs.next();
      if (done) {
        this.#unfinished.delete(id);
        return true;
      }
      memory.showRun(mapping, run, writable);
    }
    return false;
  }

  add({ mapping, frames, handles }: Omit<Window, 'id'>): Window {
    const added = { id: ++this.#lastId, mapping, frames, handles };
    this.#windows.set(added.id, added);
    return added;
  }

  get(id: number): Window | undefined {
    return this.#windows.get(id);
  }

  /** Revokes the view; the caller gives back frames and handles. @throws SysError, with the window still open */
  close(window: Window): void {
    const { id, mapping } = window;
    mapping?.[Symbol.dispose]();
    this.#unfinished.delete(id);
    this.#windows.delete(id);
    if (!this.#unseen.delete(id) && mapping) this.park(id, mapping);
  }

  /** Revokes a view, keeping its addresses for as long as another thread may look at them. */
  park(id: number, mapping: Mapping): void {
    mapping[Symbol.dispose]();
    if (this.#viewer === 'other-thread') this.#parked.set(id, mapping);
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
