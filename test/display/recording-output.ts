// An output for tests: shows what it is told, completes flips and lets pictures go when the test says so.

import type {
  ConnectorInfo,
  DisplayOutput,
  OutputConnector,
  Picture,
} from '../../src/display/output.ts';

export interface RecordingOptions {
  /** Pictures are retired only when the test calls `letGo`. */
  readonly holdRetired?: boolean;
  /** Closing a connector never comes to an end. */
  readonly holdClosing?: boolean;
}

export class RecordingOutput implements DisplayOutput {
  readonly connectors: RecordingConnector[] = [];
  readonly #options: RecordingOptions;

  constructor(options: RecordingOptions = {}) {
    this.#options = options;
  }

  async connect(info: ConnectorInfo): Promise<OutputConnector> {
    const connector = new RecordingConnector(info, this.#options);
    this.connectors.push(connector);
    return connector;
  }
}

export class RecordingConnector implements OutputConnector {
  readonly info: ConnectorInfo;
  readonly bytesCopied = 0;
  readonly path = 'recording';
  shown: Picture | undefined;
  closed = false;
  /** Calls that came after the connector was closed: there must be none. */
  lateCalls = 0;
  /** Every picture that was shown, and undefined for every blank. */
  readonly history: (Picture | undefined)[] = [];
  readonly #options: RecordingOptions;
  readonly #retired: (() => void)[] = [];
  #onFlipped: (() => void) | undefined;

  constructor(info: ConnectorInfo, options: RecordingOptions) {
    this.info = info;
    this.#options = options;
  }

  /** Whether a flip waits for its completion. */
  get pending(): boolean {
    return this.#onFlipped !== undefined;
  }

  /** How many pictures wait to be let go. */
  get retiring(): number {
    return this.#retired.length;
  }

  complete(): void {
    const onFlipped = this.#onFlipped;
    this.#onFlipped = undefined;
    onFlipped?.();
  }

  letGo(): void {
    for (const resolve of this.#retired.splice(0)) resolve();
  }

  show(picture: Picture | undefined): void {
    this.#expectOpen();
    this.complete();
    this.shown = picture;
    this.history.push(picture);
  }

  flip(picture: Picture, onFlipped: () => void): void {
    this.#expectOpen();
    this.shown = picture;
    this.history.push(picture);
    this.#onFlipped = onFlipped;
  }

  retire(_picture: Picture): Promise<void> {
    this.#expectOpen();
    if (!this.#options.holdRetired) return Promise.resolve();
    return new Promise((resolve) => {
      this.#retired.push(resolve);
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.closed = true;
    this.shown = undefined;
    return this.#options.holdClosing ? new Promise(() => {}) : Promise.resolve();
  }

  #expectOpen(): void {
    if (this.closed) this.lateCalls += 1;
  }
}
