// A token bucket: how log lines, wake-ups and requests of one guest are kept within a rate.

import type { Runtime } from './runtime.ts';

export class RateLimit {
  readonly #runtime: Runtime;
  readonly #perSecond: number;
  readonly #burst: number;
  /** Negative while more was spent than there was. */
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
    this.#refill();
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Takes tokens for work that is done anyhow, be there so many or not. */
  spend(tokens: number): void {
    this.#refill();
    this.#tokens -= tokens;
  }

  /** How long it takes until what was spent beyond the rate is made up for, in milliseconds; 0: nothing was. */
  get overdrawnMs(): number {
    this.#refill();
    return Math.max(0, (-this.#tokens * 1000) / this.#perSecond);
  }

  #refill(): void {
    const nowMs = this.#runtime.nowMs();
    const refill = ((nowMs - this.#refilledAtMs) * this.#perSecond) / 1000;
    this.#tokens = Math.min(this.#burst, this.#tokens + refill);
    this.#refilledAtMs = nowMs;
  }
}
