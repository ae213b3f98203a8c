// How far an import is, in one line on a terminal: shown when it takes longer than a moment, and gone at its end.

import type { Runtime, Timer } from '../../runtime/runtime.ts';

/** What is done sooner needs no progress. */
const SILENT_MS = 2000;
const INTERVAL_MS = 250;
const MB = 1e6;
/** The cursor to the left, and the line empty. */
const CLEAR_LINE = '\r\x1b[K';

export interface ProgressFacts {
  readonly bytes: number;
  /** Undefined where only the end will tell. */
  readonly totalBytes: number | undefined;
  readonly elapsedMs: number;
}

/** `12.3 of 100.0 MB  12 %  6.1 MB/s`. */
export function progressText({ bytes, totalBytes, elapsedMs }: ProgressFacts): string {
  const rate = `${megabytes((bytes / Math.max(1, elapsedMs)) * 1000)} MB/s`;
  if (totalBytes === undefined) return `${megabytes(bytes)} MB  ${rate}`;
  const percent = totalBytes === 0 ? 100 : Math.floor((bytes / totalBytes) * 100);
  return `${megabytes(bytes)} of ${megabytes(totalBytes)} MB  ${percent} %  ${rate}`;
}

function megabytes(bytes: number): string {
  return (bytes / MB).toFixed(1);
}

/** Where the line is shown. */
export interface ProgressTerminal {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

export interface ProgressOptions {
  readonly terminal: ProgressTerminal;
  readonly totalBytes: number | undefined;
  readonly quiet: boolean;
}

export class Progress implements Disposable {
  readonly #runtime: Runtime;
  readonly #options: ProgressOptions;
  readonly #startMs: number;
  #timer: Timer | undefined;
  #shown = false;
  /** Written so far; for whoever does it to raise. */
  bytes = 0;

  constructor(runtime: Runtime, options: ProgressOptions) {
    this.#runtime = runtime;
    this.#options = options;
    this.#startMs = runtime.nowMs();
    if (options.quiet || !options.terminal.isTTY) return;
    this.#timer = runtime.after(SILENT_MS, () => this.#show());
  }

  [Symbol.dispose](): void {
    this.#timer?.cancel();
    if (this.#shown) this.#options.terminal.write(CLEAR_LINE);
  }

  #show(): void {
    this.#shown = true;
    const { terminal, totalBytes } = this.#options;
    const elapsedMs = this.#runtime.nowMs() - this.#startMs;
    const text = progressText({ bytes: this.bytes, totalBytes, elapsedMs });
    terminal.write(`${CLEAR_LINE}${text}`);
    this.#timer = this.#runtime.after(INTERVAL_MS, () => this.#show());
  }
}
