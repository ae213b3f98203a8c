// Small numbers that name objects, from 1 on, as a kernel's IDR gives them out.
//
// Invariants: a number names one object at a time; it is reserved before its object is made, so that making it
// cannot fail afterwards for want of a number; a reserved number names nothing yet.

import assert from 'node:assert/strict';

export interface HandlesOptions {
  /** How many may be in use at the same time. */
  readonly capacity: number;
  /** The largest number; not below `capacity`. */
  readonly last: number;
  /** `lowest`: the lowest free number, again and again; `cyclic`: the next one after the last given out. */
  readonly order: 'lowest' | 'cyclic';
}

export class Handles<T extends object> {
  readonly #options: HandlesOptions;
  readonly #named = new Map<number, T | undefined>();
  #latest = 0;

  constructor(options: HandlesOptions) {
    assert(options.capacity <= options.last, 'fewer numbers than objects');
    this.#options = options;
  }

  /** A number for an object that is about to be made; undefined when all are in use. */
  reserve(): number | undefined {
    const { capacity, last, order } = this.#options;
    if (this.#named.size >= capacity) return undefined;
    let handle = order === 'cyclic' ? (this.#latest % last) + 1 : 1;
    while (this.#named.has(handle)) handle = (handle % last) + 1;
    this.#named.set(handle, undefined);
    this.#latest = handle;
    return handle;
  }

  /** From now on the reserved number names `object`. */
  set(handle: number, object: T): void {
    assert(this.#named.has(handle) && !this.#named.get(handle), `${handle} is not reserved`);
    this.#named.set(handle, object);
  }

  get(handle: number): T | undefined {
    return this.#named.get(handle);
  }

  /** Gives a number back, whether it names something or was only reserved. */
  delete(handle: number): void {
    this.#named.delete(handle);
  }

  /** What is named now, without the numbers that are only reserved. */
  get entries(): readonly (readonly [handle: number, object: T])[] {
    return [...this.#named].flatMap(([handle, object]) =>
      object === undefined ? [] : [[handle, object] as const],
    );
  }
}
