// Work that is done one at a time, with a short queue, so that what one costs (a picture is tens of megabytes
// while it is made) is not multiplied by how many ask at once.

import { HttpError } from './http-error.ts';

/** Those that may wait, the one that is served included. */
export const TURNS_MAX = 8;

export class Turns {
  readonly #what: string;
  #waiting = 0;
  #last: Promise<unknown> = Promise.resolve();

  /** `what` is waited for, for the message of a refusal. */
  constructor(what: string) {
    this.#what = what;
  }

  /** The result of `work`, which runs when those before it are over. @throws HttpError 503 when too many wait */
  async take<T>(work: () => Promise<T>): Promise<T> {
    if (this.#waiting >= TURNS_MAX) {
      const message = `${TURNS_MAX} requests wait for ${this.#what}; ask again`;
      throw new HttpError(503, message, { headers: { 'retry-after': '1' }, reason: 'too-busy' });
    }
    this.#waiting += 1;
    const before = this.#last;
    const mine = before.then(work, work);
    this.#last = mine;
    try {
      return await mine;
    } finally {
      this.#waiting -= 1;
    }
  }
}
