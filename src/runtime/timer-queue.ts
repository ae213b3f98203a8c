// Timers of virtual time: a binary heap by the time when they are due, those of one time in the order in
// which they were set.
//
// Invariants: no timer is due before its parent in the heap; a cancelled one stays where it is without its
// task, and is dropped when it is due or when such ones are more than half of all.

import type { Timer } from './runtime.ts';

interface Entry {
  readonly atMs: number;
  /** Tells timers of one time apart. */
  readonly number: number;
  /** Undefined once cancelled or taken. */
  task: (() => void) | undefined;
}

/** Fewer entries than these are not worth tidying up. */
const TIDY_MIN = 64;

export class TimerQueue {
  #heap: Entry[] = [];
  #nextNumber = 0;
  #cancelled = 0;

  /** When the next timer is due; undefined without one. */
  get nextMs(): number | undefined {
    this.#dropCancelled();
    return this.#heap[0]?.atMs;
  }

  /** Timers that wait. */
  get size(): number {
    return this.#heap.length - this.#cancelled;
  }

  add(atMs: number, task: () => void): Timer {
    const entry: Entry = { atMs, number: this.#nextNumber++, task };
    this.#rise(this.#heap.push(entry) - 1);
    return { cancel: () => this.#cancel(entry) };
  }

  /** The task of the first timer, if it is due at `nowMs`; the timer is over then. */
  take(nowMs: number): (() => void) | undefined {
    this.#dropCancelled();
    const first = this.#heap[0];
    if (first === undefined || first.atMs > nowMs) return undefined;
    const { task } = first;
    first.task = undefined;
    this.#dropFirst();
    return task;
  }

  #cancel(entry: Entry): void {
    if (entry.task === undefined) return;
    entry.task = undefined;
    this.#cancelled += 1;
    if (this.#heap.length < TIDY_MIN || this.#cancelled * 2 < this.#heap.length) return;
    // Sorted entries are a heap.
    this.#heap = this.#heap.filter(({ task }) => task !== undefined).sort(order);
    this.#cancelled = 0;
  }

  #dropCancelled(): void {
    while (this.#heap.length > 0 && this.#heap[0]!.task === undefined) {
      this.#cancelled -= 1;
      this.#dropFirst();
    }
  }

  #dropFirst(): void {
    const last = this.#heap.pop()!;
    if (this.#heap.length === 0) return;
    this.#heap[0] = last;
    this.#sink();
  }

  #rise(from: number): void {
    const entry = this.#heap[from]!;
    let at = from;
    while (at > 0) {
      const above = (at - 1) >>> 1;
      if (order(this.#heap[above]!, entry) <= 0) break;
      this.#heap[at] = this.#heap[above]!;
      at = above;
    }
    this.#heap[at] = entry;
  }

  /** Moves the first entry down to its place. */
  #sink(): void {
    const heap = this.#heap;
    const entry = heap[0]!;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && order(heap[below + 1]!, heap[below]!) < 0) below += 1;
      if (order(heap[below]!, entry) >= 0) break;
      heap[at] = heap[below]!;
      at = below;
    }
    heap[at] = entry;
  }
}

function order(a: Entry, b: Entry): number {
  return a.atMs - b.atMs || a.number - b.number;
}
