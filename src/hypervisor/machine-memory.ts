// The machine's memory: one sparse memfd, cut into 4 KiB frames that have an owner and are counted.
//
// Invariants (as Xen's page_info):
// - A frame in use has an owner and at least one reference: one for being allocated to its owner, and one
//   for each place where it is mapped. Without references it is scrubbed and free.
// - So a frame that somebody still maps never gets another owner, and a new one always reads zeros.
// - Frame 0 is never handed out: 0 means "no frame".

import assert from 'node:assert/strict';
import { DOMID_INVALID } from '../abi/xen.ts';
import { close, ftruncate, memfdCreate, punchHole } from '../posix/libc.ts';
import { Mapping, PAGE_SIZE } from '../posix/mapping.ts';
import {
  type Extent,
  FrameAllocator,
  type FrameLimit,
  framesOf,
  type Run,
  runsOf,
  wholeRun,
} from './frame-allocator.ts';

/** Where frames are shown from. */
export interface FrameSource {
  /** A mapping of one run of frames and nothing else. @throws SysError */
  mapRun(run: Extent, writable: boolean): Mapping;
  /** Shows frames in a mapping from its page `atPage` on; zeros leave their page unmapped. @throws SysError */
  show(mapping: Mapping, frames: Uint32Array, options: { atPage: number; writable: boolean }): void;
}

/** 2 GiB; the file is sparse, so only what is used takes memory. */
export const DEFAULT_MACHINE_FRAMES = 2 ** 19;

/** An allocation that is about to be made. */
export interface FrameRequest {
  readonly owner: number;
  readonly frames: number;
}

/** Decides that an allocation fails, as if the machine had no such frames: for tests and simulations. */
export type AllocationFault = (request: FrameRequest) => boolean;

export interface MachineMemoryOptions {
  readonly frames: number;
  /** Learns whose frames became free, after the fact. */
  readonly onFreed: (owner: number) => void;
  readonly fault?: AllocationFault;
}

export class MachineMemory implements FrameSource, Disposable {
  readonly frames: number;
  readonly #fd: number;
  readonly #allocator: FrameAllocator;
  readonly #owners: Uint16Array;
  readonly #references: Uint32Array;
  /** 1 while the frame has its owner's own reference. */
  readonly #allocated: Uint8Array;
  readonly #owned = new Map<number, number>();
  readonly #onFreed: (owner: number) => void;
  readonly #fault: AllocationFault;

  /** @throws SysError */
  constructor({ frames, onFreed, fault = () => false }: MachineMemoryOptions) {
    assert(Number.isInteger(frames) && frames > 1, `a machine of ${frames} frames`);
    this.frames = frames;
    this.#onFreed = onFreed;
    this.#fault = fault;
    this.#owners = new Uint16Array(frames).fill(DOMID_INVALID);
    this.#references = new Uint32Array(frames);
    this.#allocated = new Uint8Array(frames);
    this.#allocator = new FrameAllocator({ start: 1, count: frames - 1 });
    const context = { context: `making a machine memory of ${frames} frames` };
    this.#fd = memfdCreate('machine-memory', context);
    ftruncate(this.#fd, frames * PAGE_SIZE, context);
  }

  get freeFrames(): number {
    return this.#allocator.free;
  }

  /** Frames that belong to `owner`, whether still allocated or only kept by somebody's mapping. */
  ownedBy(owner: number): number {
    return this.#owned.get(owner) ?? 0;
  }

  /** Whether `frame` exists and belongs to `owner`. */
  isOwnedBy(frame: number, owner: number): boolean {
    return frame < this.frames && this.#owners[frame] === owner;
  }

  /** Whether `frame` belongs to `owner` and is not merely kept by somebody's mapping. */
  isAllocatedTo(frame: number, owner: number): boolean {
    return this.isOwnedBy(frame, owner) && this.#allocated[frame] === 1;
  }

  /** Whose `frame` is, unless it is free or merely kept by somebody's mapping. */
  ownerOf(frame: number): number | undefined {
    return this.#allocated[frame] === 1 ? this.#owners[frame] : undefined;
  }

  /** Whether `frame` is allocated to `owner` and mapped nowhere. */
  isUnmapped(frame: number, owner: number): boolean {
    return this.isAllocatedTo(frame, owner) && this.#references[frame] === 1;
  }

  /** Who uses `frame`: its owner as one, and each place where it is mapped; 0 when it is free. */
  referencesTo(frame: number): number {
    return this.#references[frame] ?? 0;
  }

  /** New frames, zeroed, with one reference each; undefined when the machine has too few. */
  allocate(owner: number, count: number, limit: FrameLimit = {}): Uint32Array | undefined {
    if (this.#fault({ owner, frames: count })) return undefined;
    const extents = this.#allocator.allocate(count, limit);
    return extents && this.#assign(owner, extents);
  }

  /** As `allocate`, 2^order consecutive frames that start at a multiple of their number. */
  allocateAligned(owner: number, limit: FrameLimit & { order: number }): Uint32Array | undefined {
    const count = 2 ** limit.order;
    if (this.#fault({ owner, frames: count })) return undefined;
    const start = this.#allocator.allocateAligned(limit);
    return start === undefined ? undefined : this.#assign(owner, [{ start, count }]);
  }

  /**
   * Takes away the owner's own reference: what nobody maps becomes free at once. Stops at the first
   * frame that is not allocated to `owner`. @returns how many frames were given up
   */
  relinquish(owner: number, frames: Uint32Array): number {
    let count = 0;
    while (count < frames.length && this.isAllocatedTo(frames[count]!, owner)) {
      this.#allocated[frames[count++]!] = 0;
    }
    this.release(frames.subarray(0, count));
    return count;
  }

  /** The frames that are allocated to `owner`. */
  allocatedTo(owner: number): Uint32Array {
    const frames = new Uint32Array(this.ownedBy(owner));
    let count = 0;
    for (
      let frame = this.#owners.indexOf(owner);
      frame >= 0;
      frame = this.#owners.indexOf(owner, frame + 1)
    ) {
      if (this.#allocated[frame] === 1) frames[count++] = frame;
    }
    return frames.subarray(0, count);
  }

  /** One more user of a frame that is in use. */
  reference(frame: number): void {
    if (!this.#references[frame]) assert.fail(`frame ${frame} is free`);
    this.#references[frame]!++;
  }

  /** One user less of each frame (0 stands for none); those without any are scrubbed and free. */
  release(frames: Uint32Array): void {
    const freed = new Uint32Array(frames.length);
    let count = 0;
    for (const frame of frames) {
      if (frame === 0) continue;
      if (!this.#references[frame]) assert.fail(`frame ${frame} is released too often`);
      if (--this.#references[frame]! === 0) freed[count++] = frame;
    }
    if (count > 0) this.#free(freed.subarray(0, count).sort());
  }

  /** The file that is the memory. */
  get fd(): number {
    return this.#fd;
  }

  mapRun(run: Extent, writable: boolean): Mapping {
    return mapExtent(run, { fd: this.#fd, writable });
  }

  show(
    mapping: Mapping,
    frames: Uint32Array,
    options: { atPage: number; writable: boolean },
  ): void {
    showFrames(mapping, frames, { ...options, fd: this.#fd });
  }

  /** Shows one run of frames where it belongs in a mapping. @throws SysError */
  showRun(mapping: Mapping, { start, count, index }: Run, writable: boolean): void {
    const place = { atPage: index, pages: count, writable };
    mapping.place({ fd: this.#fd, offset: start * PAGE_SIZE, ...place });
  }

  [Symbol.dispose](): void {
    close(this.#fd, { context: 'closing the machine memory' });
  }

  #assign(owner: number, extents: readonly Extent[]): Uint32Array {
    const frames = framesOf(extents);
    for (const { start, count } of extents) {
      this.#owners.fill(owner, start, start + count);
      this.#references.fill(1, start, start + count);
      this.#allocated.fill(1, start, start + count);
    }
    this.#owned.set(owner, this.ownedBy(owner) + frames.length);
    return frames;
  }

  /** Scrubs sorted frames and gives them back. */
  #free(frames: Uint32Array): void {
    const owners = new Set<number>();
    for (const frame of frames) {
      const owner = this.#owners[frame]!;
      this.#owners[frame] = DOMID_INVALID;
      this.#owned.set(owner, this.ownedBy(owner) - 1);
      owners.add(owner);
    }
    for (const run of runsOf(frames)) {
      const range = { offset: run.start * PAGE_SIZE, length: run.count * PAGE_SIZE };
      punchHole(this.#fd, range, { context: `scrubbing ${run.count} frames` });
      this.#allocator.release(run);
    }
    for (const owner of owners) {
      if (this.ownedBy(owner) === 0) this.#owned.delete(owner);
      this.#onFreed(owner);
    }
  }
}

/** As `FrameSource.mapRun`, out of the file that is the machine's memory. @throws SysError */
export function mapExtent(
  { start, count }: Extent,
  { fd, writable }: { fd: number; writable: boolean },
): Mapping {
  return new Mapping(count, { fd, offset: start * PAGE_SIZE, writable });
}

/** As `FrameSource.show`, out of the file that is the machine's memory. @throws SysError */
export function showFrames(
  mapping: Mapping,
  frames: Uint32Array,
  { fd, atPage, writable }: { fd: number; atPage: number; writable: boolean },
): void {
  for (const { start, count, index } of runsOf(frames)) {
    const offset = start * PAGE_SIZE;
    mapping.place({ fd, offset, atPage: atPage + index, pages: count, writable });
  }
}

/** A mapping of `frames` in their order. @throws SysError, with nothing left behind */
export function mapFrames(memory: FrameSource, frames: Uint32Array, writable: boolean): Mapping {
  const run = wholeRun(frames);
  if (run) return memory.mapRun(run, writable);
  const mapping = new Mapping(frames.length);
  try {
    memory.show(mapping, frames, { atPage: 0, writable });
    return mapping;
  } catch (error) {
    mapping[Symbol.dispose]();
    throw error;
  }
}
