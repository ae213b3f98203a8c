// The output that shows nothing: it completes flips at once, or at a monitor's rate, and reads no pixel.
// What benchmarks measure against, and what a guest without an audience can have.

import type { ConnectorInfo, DisplayOutput, OutputConnector, Picture } from '../display/output.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { Vblank } from './vblank.ts';

export interface NullOutputOptions {
  readonly runtime: Runtime;
  /** Flips complete at most this often; without it, at once. */
  readonly refreshHz?: number;
}

export class NullOutput implements DisplayOutput {
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
  readonly path = 'null';
  readonly #vblank: Vblank | undefined;
  #onFlipped: (() => void) | undefined;

  constructor({ runtime, refreshHz }: NullOutputOptions) {
    const onRefresh = () => this.#complete();
    this.#vblank =
      refreshHz === undefined ? undefined : new Vblank(runtime, { refreshHz, onRefresh });
  }

  show(_picture: Picture | undefined): void {
    this.#vblank?.cancel();
    this.#complete();
  }

  flip(_picture: Picture, onFlipped: () => void): void {
    this.#onFlipped = onFlipped;
    if (this.#vblank) this.#vblank.schedule();
    else this.#complete();
  }

  async retire(_picture: Picture): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    this.#vblank?.cancel();
  }

  #complete(): void {
    const onFlipped = this.#onFlipped;
    this.#onFlipped = undefined;
    onFlipped?.();
  }
}
