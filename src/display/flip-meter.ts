// How a connector does: flips in all, flips a second, and how long a flip takes from its arrival to its
// event. Costs two additions and a comparison per flip; the rate is that of the last whole window.

import type { Runtime } from '../runtime/runtime.ts';

/** Length of the window that a rate is measured over, in milliseconds. */
const WINDOW_MS = 1000;

export class FlipMeter {
  readonly #runtime: Runtime;
  #flips = 0;
  #arrivedAtMs = 0;
  #latencyMs: number | undefined;
  #windowStartMs: number;
  #windowFlips = 0;
  #perSecond = 0;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
    this.#windowStartMs = runtime.nowMs();
  }

  get flips(): number {
    return this.#flips;
  }

  /** Of the last flip, in milliseconds; undefined before the first. */
  get latencyMs(): number | undefined {
    return this.#latencyMs;
  }

  get flipsPerSecond(): number {
    this.#roll(this.#runtime.nowMs());
    return this.#perSecond;
  }

  arrived(): void {
    this.#arrivedAtMs = this.#runtime.nowMs();
  }

  completed(): void {
    const nowMs = this.#runtime.nowMs();
    this.#latencyMs = nowMs - this.#arrivedAtMs;
    this.#roll(nowMs);
    this.#flips += 1;
    this.#windowFlips += 1;
  }

  /** Begins a new window when the present one is over. */
  #roll(nowMs: number): void {
    const elapsedMs = nowMs - this.#windowStartMs;
    if (elapsedMs < WINDOW_MS) return;
    this.#perSecond = (this.#windowFlips * 1000) / elapsedMs;
    this.#windowStartMs = nowMs;
    this.#windowFlips = 0;
  }
}
