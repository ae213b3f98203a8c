// How often something happened in the last second. Counts in slots of a fixed ring: no allocation, no
// timer, and the number falls to 0 by itself when nothing happens any more.

import type { Runtime } from './runtime.ts';

/** The second is divided into this many slots. */
const SLOTS_PER_SECOND = 10;
const SLOT_MS = 1000 / SLOTS_PER_SECOND;

/** Those of a whole second, and the one that is being filled. */
const SLOTS = SLOTS_PER_SECOND + 1;

export class RateMeter {
  readonly #runtime: Runtime;
  readonly #counts = new Uint32Array(SLOTS);
  readonly #epochs = new Float64Array(SLOTS).fill(-1);

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  count(): void {
    const epoch = Math.floor(this.#runtime.nowMs() / SLOT_MS);
    const slot = epoch % SLOTS;
    if (this.#epochs[slot] !== epoch) {
      this.#epochs[slot] = epoch;
      this.#counts[slot] = 0;
    }
    this.#counts[slot] = this.#counts[slot]! + 1;
  }

  /** Events in the last second, up to the slot that is being filled. */
  perSecond(): number {
    const epoch = Math.floor(this.#runtime.nowMs() / SLOT_MS);
    let sum = 0;
    for (let slot = 0; slot < SLOTS; slot++) {
      const age = epoch - this.#epochs[slot]!;
      if (age >= 1 && age <= SLOTS_PER_SECOND) sum += this.#counts[slot]!;
    }
    return sum;
  }
}
