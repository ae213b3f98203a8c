// How often the server refused something, by reason: who knocks without a token, from a foreign page, too often;
// and how often a viewer had to wait.

import type { HttpError } from './http-error.ts';

export class RefusalCounts {
  readonly #counts = new Map<string, number>();
  #rests = 0;

  /** Counts a refusal that has a reason; ordinary mistakes have none. */
  count({ reason }: HttpError): void {
    if (reason !== undefined) this.#counts.set(reason, (this.#counts.get(reason) ?? 0) + 1);
  }

  /** Counts a viewer that went beyond its rate. */
  countRest(): void {
    this.#rests += 1;
  }

  get rests(): number {
    return this.#rests;
  }

  get byReason(): ReadonlyMap<string, number> {
    return this.#counts;
  }
}
