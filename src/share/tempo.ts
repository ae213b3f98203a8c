// Whether frames follow each other so fast that it pays to look for the next one before going to sleep: a wake-up
// through the hypervisor and two kernels costs more than a frame takes then. A stream at the pace of a screen
// is never so fast, and costs nothing while nothing comes.

import type { Runtime } from '../runtime/runtime.ts';

/** Frames that follow each other within this time are a bulk transfer. */
const BULK_GAP_MS = 2;
/** Turns of the event loop for which the next frame is looked for. */
const MAX_TURNS = 256;

export class Tempo {
  readonly #runtime: Runtime;
  #lastMs = Number.NEGATIVE_INFINITY;
  #gapMs = Number.POSITIVE_INFINITY;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  /** A frame, now. */
  beat(): void {
    const nowMs = this.#runtime.nowMs();
    this.#gapMs = nowMs - this.#lastMs;
    this.#lastMs = nowMs;
  }

  /**
   * Looks turn by turn while frames are to be expected; other work goes on between.
   * @returns what `look` found, or undefined when it is time to sleep
   */
  async lookAhead<T>(look: () => T | undefined): Promise<T | undefined> {
    for (let turn = 0; turn < MAX_TURNS; turn++) {
      const found = look();
      if (found !== undefined || !this.#isBulk) return found;
      await new Promise<void>((resolve) => this.#runtime.defer(resolve));
    }
    return look();
  }

  get #isBulk(): boolean {
    if (this.#gapMs > BULK_GAP_MS) return false;
    return this.#runtime.nowMs() - this.#lastMs <= BULK_GAP_MS;
  }
}
