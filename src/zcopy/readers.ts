// Who reads a buffer on our side: outputs that show it, a program that looks at it. The first step of every
// release is that they have all let go.

import type { Holder, ReleaseStep } from './release.ts';

export class Readers implements ReleaseStep {
  readonly holder: Holder;
  readonly #reading = new Set<Promise<void>>();
  #abandoned: () => void = () => {};
  readonly #abandon = new Promise<void>((resolve) => {
    this.#abandoned = resolve;
  });

  /** `pages` of the buffer that is read. */
  constructor(pages: number) {
    this.holder = { who: 'an output or program that reads it', pages, evidence: 'has not let go' };
  }

  /** Something may read the buffer until `done` settles. */
  add(done: Promise<void>): void {
    const reading = done.catch(() => {}).finally(() => this.#reading.delete(reading));
    this.#reading.add(reading);
  }

  /** Waits for nobody any more: whoever reads late sees zeros (posix/mapping.ts). */
  abandon(): void {
    this.#abandoned();
  }

  /** Resolves when nobody reads any more, or when they were abandoned. */
  async attempt(): Promise<undefined> {
    await Promise.race([Promise.all(this.#reading), this.#abandon]);
    return undefined;
  }
}
