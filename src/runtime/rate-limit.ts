// A token bucket: how log lines, wake-ups and requests of one guest are kept within a rate.

import type { Runtime } from './runtime.ts';

export class RateLimit {
  readonly #runtime: Runtime;
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #refilledAtMs: number;

  constructor(runtime: Runtime, { perSecond, burst }: { perSecond: number; burst: number }) {
    this.#runtime = runtime;
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
    this.#refilledAtMs = runtime.nowMs();
  }

  /** Takes one token when there is one. */
  tryTake(): boolean {
    const nowMs = this.#runtime.nowMs();
    const refill = ((nowMs - this.#refilledAtMs) * this.#perSecond) / 1000;
    this.#tokens = Math.min(this.#burst, this.#tokens + refill);
    this.#refilledAtMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
