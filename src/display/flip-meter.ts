// How a connector does: flips in all, flips in the last second, and how long the last flip took from its
// arrival to its event.

import { RateMeter } from '../runtime/rate-meter.ts';
import type { Runtime } from '../runtime/runtime.ts';

export class FlipMeter {
  readonly #runtime: Runtime;
  readonly #rate: RateMeter;
  #flips = 0;
  #arrivedAtMs = 0;
  #latencyMs: number | undefined;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
    this.#rate = new RateMeter(runtime);
  }

  get flips(): number {
    return this.#flips;
  }

  get flipsPerSecond(): number {
    return this.#rate.perSecond();
  }

  /** Of the last flip, in milliseconds; undefined before the first. */
  get latencyMs(): number | undefined {
    return this.#latencyMs;
  }

  arrived(): void {
    this.#arrivedAtMs = this.#runtime.nowMs();
  }

  completed(): void {
    this.#latencyMs = this.#runtime.nowMs() - this.#arrivedAtMs;
    this.#flips += 1;
    this.#rate.count();
  }
}
