// How much of the time is spent looking at pictures, over all screens together: whoever shows many or huge ones,
// which somebody watches, must not slow down the other guests.
//
// Looks that have to wait take turns in the order in which they asked, one timer for all of them.

import type { Runtime, Timer } from '../runtime/runtime.ts';

/** The share of the time that looking may take. */
const SHARE = 0.5;

export class LookingTime {
  readonly #runtime: Runtime;
  readonly #waiting = new Set<() => void>();
  #freeAtMs = Number.NEGATIVE_INFINITY;
  #timer: Timer | undefined;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  /** Calls `look` once: now when there is time. @returns else its place in the queue, to be given up by disposing */
  ask(look: () => void): Disposable | undefined {
    if (this.#waiting.size === 0 && this.#runtime.nowMs() >= this.#freeAtMs) {
      this.#do(look);
      return undefined;
    }
    this.#waiting.add(look);
    this.#arm();
    return { [Symbol.dispose]: () => void this.#waiting.delete(look) };
  }

  #do(look: () => void): void {
    const beganMs = this.#runtime.nowMs();
    look();
    this.#freeAtMs = beganMs + (this.#runtime.nowMs() - beganMs) / SHARE;
  }

  #arm(): void {
    if (this.#timer !== undefined) return;
    const delayMs = Math.max(0, this.#freeAtMs - this.#runtime.nowMs());
    this.#timer = this.#runtime.after(delayMs, () => {
      this.#timer = undefined;
      const [next] = this.#waiting;
      if (next === undefined) return;
      this.#waiting.delete(next);
      this.#do(next);
      if (this.#waiting.size > 0) this.#arm();
    });
  }
}
