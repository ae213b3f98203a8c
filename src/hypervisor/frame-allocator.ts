// Which machine frames are free: a list of extents, sorted by address, neighbours always merged.
//
// Invariants: extents never overlap nor touch; their counts sum up to `free`. A request gets one
// contiguous run when there is one (the lowest that fits), else the fewest pieces that make it up.

import assert from 'node:assert/strict';

/** A run of consecutive frames. */
export interface Extent {
  readonly start: number;
  readonly count: number;
}

export class FrameAllocator {
  #free: number;
  #extents: Extent[];

  /** All of `extent` is free at first. */
  constructor(extent: Extent) {
    assert(extent.count > 0, 'an allocator of nothing');
    this.#free = extent.count;
    this.#extents = [extent];
  }

  /** Free frames, however scattered. */
  get free(): number {
    return this.#free;
  }

  /** Takes `count` frames, or nothing (undefined) when fewer are free. Extents come in address order. */
  allocate(count: number): Extent[] | undefined {
    assert(Number.isInteger(count) && count > 0, `allocating ${count} frames`);
    if (count > this.#free) return undefined;
    this.#free -= count;
    const index = this.#extents.findIndex((extent) => extent.count >= count);
    return index >= 0 ? [this.#takeFrom(index, count)] : this.#takePieces(count);
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

  #takeFrom(index: number, count: number): Extent {
    const { start, count: available } = this.#extents[index]!;
    if (available === count) this.#extents.splice(index, 1);
    else this.#extents[index] = { start: start + count, count: available - count };
    return { start, count };
  }

  /** No run is long enough: the longest ones first, so that there are few. */
  #takePieces(count: number): Extent[] {
    const longestFirst = [...this.#extents].sort((a, b) => b.count - a.count);
    const taken = new Map<Extent, number>();
    let missing = count;
    for (const extent of longestFirst) {
      if (missing === 0) break;
      const part = Math.min(missing, extent.count);
      taken.set(extent, part);
      missing -= part;
    }
    assert.equal(missing, 0, 'the extents hold what `free` says');
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

/** The runs of consecutive frames in `frames`, in the order given; zeros (no frame) separate runs. */
export function* runsOf(frames: Uint32Array): Generator<Extent & { readonly index: number }> {
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
