// The importer of a stream, as its exporter waits for it: present from its opening of the share until it
// closes it, or dies.
//
// Invariant: of a stream that is for one importer from its first byte to its last, no byte goes to a second one.

import type { ExportedShare } from '../../share/exported-share.ts';
import type { Fence, WritableFrame } from '../../share/producer.ts';
import { ShareError } from '../../share/share-error.ts';

export class Recipient {
  readonly #share: ExportedShare;
  readonly #opens: number;
  readonly #ending: AbortSignal;
  /** Aborts when it is gone, or the command ends. */
  readonly #here: AbortSignal;
  readonly #closed: Promise<void>;
  /** Of frames whose fate is not known yet: as many as there are slots, at most. */
  #out: Fence[] = [];

  /** It has the share open now; `ending` aborts when the command ends. */
  constructor(share: ExportedShare, ending: AbortSignal) {
    this.#share = share;
    this.#opens = share.opens;
    this.#ending = ending;
    const gone = new AbortController();
    this.#here = AbortSignal.any([ending, gone.signal]);
    this.#closed = share.closed({ signal: ending });
    this.#closed.then(
      () => gone.abort(this.#gone()),
      () => {},
    );
  }

  /** Aborts when it is gone, or the command ends. */
  get signal(): AbortSignal {
    return this.#here;
  }

  /** Resolves when it has closed the share. @throws the reason of the command's end */
  gone(): Promise<void> {
    return this.#closed;
  }

  /** A slot to fill. @throws ShareError `importer-gone` */
  async acquire(): Promise<WritableFrame> {
    const { producer } = this.#share;
    const frame = producer.tryAcquire() ?? (await producer.acquire({ signal: this.#here }));
    this.#check();
    return frame;
  }

  /** @throws ShareError `importer-gone` when it is, or went before it had a frame that was published earlier */
  publish(frame: WritableFrame, byteLength: number): void {
    this.#check();
    this.#out.push(frame.publish({ byteLength }));
    this.#checkFates();
  }

  /** Ends the stream, and waits until it has everything. @throws ShareError `importer-gone` when it has not */
  async end(): Promise<void> {
    this.#check();
    const { producer } = this.#share;
    producer.end();
    await producer.drained({ signal: this.#ending });
    this.#checkFates();
  }

  /** Whether it is that which was thrown. */
  isGone(error: unknown): boolean {
    return error instanceof ShareError && error.reason === 'importer-gone';
  }

  #check(): void {
    this.#here.throwIfAborted();
    if (this.#share.state !== 'open' || this.#share.opens !== this.#opens) throw this.#gone();
  }

  #checkFates(): void {
    if (this.#out.some(({ fate }) => fate === 'consumer-gone')) throw this.#gone();
    this.#out = this.#out.filter(({ fate }) => fate === undefined);
  }

  #gone(): ShareError {
    const detail = `domain ${this.#share.to} has closed the share before the end of the stream`;
    return new ShareError('importer-gone', detail);
  }
}
