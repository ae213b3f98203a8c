// The output that shows nothing: it completes flips at once, or at a monitor's rate, and reads no pixel.
// What benchmarks measure against, and what a guest without an audience can have.

import type { ConnectorInfo, DisplayOutput, OutputConnector, Picture } from '../display/output.ts';
import type { Runtime, Timer } from '../runtime/runtime.ts';

export interface NullOutputOptions {
  readonly runtime: Runtime;
  /** Flips complete this often; without it, at once. */
  readonly refreshHz?: number;
}

export class NullOutput implements DisplayOutput {
  readonly name = 'null';
  readonly #options: NullOutputOptions;

  constructor(options: NullOutputOptions) {
    this.#options = options;
  }

  async connect(_info: ConnectorInfo): Promise<OutputConnector> {
    return new NullConnector(this.#options);
  }
}

class NullConnector implements OutputConnector {
  readonly bytesCopied = 0;
  readonly #runtime: Runtime;
  readonly #periodMs: number | undefined;
  #timer: Timer | undefined;
  /** Number of the last refresh that completed a flip, counted from the clock's zero. */
  #refresh = 0;
  #onFlipped: (() => void) | undefined;

  constructor({ runtime, refreshHz }: NullOutputOptions) {
    this.#runtime = runtime;
    this.#periodMs = refreshHz === undefined ? undefined : 1000 / refreshHz;
  }

  show(_picture: Picture | undefined): void {
    this.#complete();
  }

  flip(_picture: Picture, onFlipped: () => void): void {
    if (this.#periodMs === undefined) {
      onFlipped();
      return;
    }
    this.#onFlipped = onFlipped;
    // Never twice in one period, though a timer may fire a little early.
    const nowMs = this.#runtime.nowMs();
    this.#refresh = Math.max(Math.floor(nowMs / this.#periodMs), this.#refresh) + 1;
    const delayMs = this.#refresh * this.#periodMs - nowMs;
    this.#timer = this.#runtime.after(delayMs, () => this.#complete());
  }

  async retire(_picture: Picture): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    this.#timer?.cancel();
  }

  #complete(): void {
    this.#timer?.cancel();
    const onFlipped = this.#onFlipped;
    this.#onFlipped = undefined;
    onFlipped?.();
  }
}
