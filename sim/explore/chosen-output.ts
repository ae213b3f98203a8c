// An output of which each step is a move: when a flip is complete, and when a picture that was retired is not read
// any more. It reads what it was given as long as it may, so that a view that went too early shows.

import type { ConnectorInfo, OutputConnector, Picture } from '../../src/display/output.ts';
import type { DomId } from '../../src/xen/ids.ts';
import type { Move } from './chosen-runtime.ts';

export class ChosenConnector implements OutputConnector {
  readonly bytesCopied = 0;
  readonly path = 'explored';
  /** Pictures that this output may read now. */
  readonly reading = new Set<Picture>();
  /** Calls after it was closed: there must be none. */
  lateCalls = 0;
  readonly domid: DomId;
  readonly #owner: string;
  readonly #retired: (() => void)[] = [];
  #onFlipped: (() => void) | undefined;
  #closed = false;

  constructor({ domid, index }: ConnectorInfo) {
    this.domid = domid;
    this.#owner = `output of domain ${domid}, connector ${index}`;
  }

  moves(): Move[] {
    const moves: Move[] = [];
    if (this.#onFlipped !== undefined) {
      moves.push({ name: `${this.#owner} completes the flip`, run: () => this.#complete() });
    }
    if (this.#retired.length > 0) {
      moves.push({ name: `${this.#owner} lets a picture go`, run: () => this.#retired.shift()!() });
    }
    return moves;
  }

  describe(): string {
    const { reading, lateCalls } = this;
    const flipping = this.#onFlipped !== undefined;
    return `${this.#owner}: flipping ${flipping}, ${this.#retired.length} retired, reads ${reading.size}, late ${lateCalls}, closed ${this.#closed}`;
  }

  show(picture: Picture | undefined): void {
    this.#called();
    this.#complete();
    if (picture !== undefined) this.reading.add(picture);
  }

  flip(picture: Picture, onFlipped: () => void): void {
    this.#called();
    this.reading.add(picture);
    this.#onFlipped = onFlipped;
  }

  retire(picture: Picture): Promise<void> {
    this.#called();
    return new Promise((resolve) => {
      this.#retired.push(() => {
        this.reading.delete(picture);
        resolve();
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#onFlipped = undefined;
    this.reading.clear();
    for (const letGo of this.#retired.splice(0)) letGo();
  }

  #complete(): void {
    const onFlipped = this.#onFlipped;
    this.#onFlipped = undefined;
    onFlipped?.();
  }

  #called(): void {
    if (this.#closed) this.lateCalls += 1;
  }
}
