// Who reads a buffer on our side: outputs that show it, a program that looks at it. The first step of every
// release is that they have all let go.

import type { Holder, ReleaseStep } from './release.ts';

export class Readers implements ReleaseStep {
  readonly holder: Holder;
  readonly #reading = new Set<Promise<void>>();
  #abandoned = false;
  #giveUp: () => void = () => {};
  readonly #givenUp = new Promise<void>((resolve) => {
    this.#giveUp = resolve;
  });

  /** `pages` of the buffer that is read. */
  constructor(pages: number) {
    this.holder = { who: 'an output or program that reads it', pages, evidence: 'has not let go' };
  }

  /** Something may read the buffer until `done` settles; counts also while readers are being waited for. */
  add(done: Promise<void>): void {
    const reading = done.catch(() => {}).finally(() => this.#reading.delete(reading));
    this.#reading.add(reading);
  }

  /** Waits for nobody any more: whoever reads late sees zeros (posix/mapping.ts). */
  abandon(): void {
    this.#abandoned = true;
    this.#giveUp();
  }

  /** Resolves when nobody reads any more, or when they were abandoned. */
  async attempt(): Promise<undefined> {
    while (this.#reading.size > 0 && !this.#abandoned) {
      await Promise.race([Promise.all(this.#reading), this.#givenUp]);
    }
    return undefined;
  }
}
