// Which machine frames are free: a list of extents, sorted by address, neighbours always merged.
//
// Invariants: extents never overlap nor touch; their counts sum up to `free`. A request gets one
// contiguous run when there is one (the lowest that fits), else the fewest pieces that make it up; one for
// an order gets 2^order consecutive frames at a multiple of their number, as Xen's buddy allocator
// (xen/common/page_alloc.c), or nothing.

import assert from 'node:assert/strict';

/** A run of consecutive frames. */
export interface Extent {
  readonly start: number;
  readonly count: number;
}

/** Where frames may lie. */
export interface FrameLimit {
  /** Every frame must be lower than this one. */
  readonly below?: number;
}

export class FrameAllocator {
  #free = 0;
  #extents: Extent[] = [];

  /** All of `extent` is free at first; nothing is, without one. */
  constructor(extent?: Extent) {
    if (extent) this.release(extent);
  }

  /** Free frames, however scattered. */
  get free(): number {
    return this.#free;
  }

  /** Takes `count` frames, or nothing (undefined) when fewer are free. Extents come in address order. */
  allocate(count: number, { below = Infinity }: FrameLimit = {}): Extent[] | undefined {
    assert(Number.isInteger(count) && count > 0, `allocating ${count} frames`);
    if (count > this.#free) return undefined;
    const index = this.#extents.findIndex((extent) => usable(extent, below) >= count);
    return index >= 0 ? [this.#take(index, { count })] : this.#takePieces(count, below);
  }

  /** Takes 2^order frames that start at a multiple of 2^order. @returns the first, undefined without such */
  allocateAligned({ order, below = Infinity }: FrameLimit & { order: number }): number | undefined {
    const count = 2 ** order;
    const index = this.#extents.findIndex(
      (extent) => roundUp(extent.start, count) + count <= extent.start + usable(extent, below),
    );
    if (index < 0) return undefined;
    const start = roundUp(this.#extents[index]!.start, count);
    return this.#take(index, { count, start }).start;
  }

  /** Gives a run back. */
  release({ start, count }: Extent): void {
    const index = this.#indexAfter(start);
    const before = this.#extents[index - 1];
    const after = this.#extents[index];
    assert(count > 0 && (!before || before.start + before.count <= start), 'freed twice');
    assert(!after || start + count <= after.start, 'freed twice');
    const joinsBefore = before !== undefined && before.start + before.count === start;
    const joinsAfter = after !== undefined && start + count === after.start;
    const merged = {
      start: joinsBefore ? before.start : start,
      count: count + (joinsBefore ? before.count : 0) + (joinsAfter ? after.count : 0),
    };
    this.#extents.splice(
      joinsBefore ? index - 1 : index,
      Number(joinsBefore) + Number(joinsAfter),
      merged,
    );
    this.#free += count;
  }

  /** Takes a part of an extent, which leaves up to two. */
  #take(index: number, part: { count: number; start?: number }): Extent {
    const extent = this.#extents[index]!;
    const { count, start = extent.start } = part;
    const rest = [
      { start: extent.start, count: start - extent.start },
      { start: start + count, count: extent.start + extent.count - start - count },
    ];
    this.#extents.splice(index, 1, ...rest.filter((piece) => piece.count > 0));
    this.#free -= count;
    return { start, count };
  }

  /** No run is long enough: the longest ones first, so that there are few. */
  #takePieces(count: number, below: number): Extent[] | undefined {
    const longestFirst = this.#extents
      .map((extent) => ({ extent, room: usable(extent, below) }))
      .sort((a, b) => b.room - a.room);
    const taken = new Map<Extent, number>();
    let missing = count;
    for (const { extent, room } of longestFirst) {
      if (missing === 0 || room <= 0) break;
      const part = Math.min(missing, room);
      taken.set(extent, part);
      missing -= part;
    }
    if (missing > 0) return undefined;
    this.#free -= count;
    const pieces: Extent[] = [];
    this.#extents = this.#extents.flatMap((extent) => {
      const part = taken.get(extent);
      if (part === undefined) return [extent];
      pieces.push({ start: extent.start, count: part });
      const rest = { start: extent.start + part, count: extent.count - part };
      return rest.count > 0 ? [rest] : [];
    });
    return pieces;
  }

  /** Index of the first extent that starts after `frame`. */
  #indexAfter(frame: number): number {
    let low = 0;
    let high = this.#extents.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#extents[middle]!.start > frame) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** Frames of an extent that are lower than `below`, from its start on. */
function usable({ start, count }: Extent, below: number): number {
  return Math.min(count, below - start);
}

function roundUp(frame: number, multiple: number): number {
  return Math.ceil(frame / multiple) * multiple;
}

/** The frames of extents, in their order. */
export function framesOf(extents: readonly Extent[]): Uint32Array {
  const frames = new Uint32Array(extents.reduce((total, { count }) => total + count, 0));
  let filled = 0;
  for (const { start, count } of extents) {
    for (let frame = start; frame < start + count; frame++) frames[filled++] = frame;
  }
  return frames;
}

/** A run in a list of frames. */
export interface Run extends Extent {
  /** Of its first frame in the list. */
  readonly index: number;
}

/** The run that `frames` are, if they are one. */
export function wholeRun(frames: Uint32Array): Extent | undefined {
  const start = frames[0] ?? 0;
  if (start === 0) return undefined;
  for (let index = 1; index < frames.length; index++) {
    if (frames[index] !== start + index) return undefined;
  }
  return { start, count: frames.length };
}

/** The runs of consecutive frames in `frames`, in the order given; zeros (no frame) separate runs. */
export function* runsOf(frames: Uint32Array): Generator<Run> {
  let index = 0;
  while (index < frames.length) {
    const start = frames[index]!;
    let count = 1;
    if (start !== 0) {
      while (index + count < frames.length && frames[index + count] === start + count) count++;
      yield { start, count, index };
    }
    index += count;
  }
}
