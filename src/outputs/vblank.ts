// The refreshes of a screen that has no hardware: at most one per period, and none when nobody asks.
//
// Like a display with adaptive sync: after a pause the next refresh happens at once; a busy screen
// refreshes on a steady grid (each refresh is due one period after the last one was *due*, so late
// timers do not slow it down). Invariants: at most one timer; no timer when nothing is scheduled; the
// task never runs inside `schedule`.

import type { Runtime, Timer } from '../runtime/runtime.ts';

export class Vblank {
  readonly periodMs: number;
  readonly #runtime: Runtime;
  readonly #onRefresh: () => void;
  #dueMs = Number.NEGATIVE_INFINITY;
  #timer: Timer | undefined;

  constructor(
    runtime: Runtime,
    { refreshHz, onRefresh }: { refreshHz: number; onRefresh: () => void },
  ) {
    this.#runtime = runtime;
    this.periodMs = 1000 / refreshHz;
    this.#onRefresh = onRefresh;
  }

  /** Asks for one refresh, as soon as the rate allows. Does nothing when one is scheduled. */
  schedule(): void {
    if (this.#timer) return;
    const nowMs = this.#runtime.nowMs();
    this.#dueMs = Math.max(nowMs, this.#dueMs + this.periodMs);
    this.#timer = this.#runtime.after(this.#dueMs - nowMs, () => {
      this.#timer = undefined;
      this.#onRefresh();
    });
  }

  /** Forgets the scheduled refresh; its place on the grid stays taken, so cancelling gains no rate. */
  cancel(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }
}
