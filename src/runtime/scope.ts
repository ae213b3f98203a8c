// Ownership (law 5): every resource belongs to one scope, scopes form a tree, and closing a scope
// releases what it owns in reverse order of acquisition, even when some of the releases fail.
//
// Invariants: each owned thing is released exactly once; a closed scope owns nothing; acquiring into
// a closing scope releases the newcomer at once and throws, so nothing can slip in and be forgotten.

import assert from 'node:assert/strict';

type Release = () => void | Promise<void>;

export class Scope implements AsyncDisposable {
  readonly name: string;
  readonly #abort = new AbortController();
  readonly #owned = new Set<Release>();
  #closing: Promise<void> | undefined;

  constructor(name: string) {
    this.name = name;
  }

  /** Aborts when the scope begins to close: pass it to everything that waits on the scope's behalf. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get closing(): boolean {
    return this.#closing !== undefined;
  }

  /** How many resources (child scopes count as one) are owned now. */
  get size(): number {
    return this.#owned.size;
  }

  /** A scope inside this one; it leaves its parent when it is closed by itself. */
  child(name: string): Scope {
    const child = new Scope(`${this.name}/${name}`);
    const release = () => child.close();
    this.#add(release);
    child.defer(() => {
      this.#owned.delete(release);
    });
    return child;
  }

  /** Makes this scope the owner of `resource`. @throws when the scope is closing (after releasing it) */
  own<T extends Disposable | AsyncDisposable>(resource: T): T {
    this.#add(async () => {
      if (Symbol.asyncDispose in resource) await resource[Symbol.asyncDispose]();
      else resource[Symbol.dispose]();
    });
    return resource;
  }

  /** Runs `release` when the scope closes. @throws when the scope is closing (after running it) */
  defer(release: Release): void {
    this.#add(release);
  }

  /** Releases everything, newest first. Idempotent: every caller gets the same promise. */
  close(): Promise<void> {
    this.#closing ??= this.#releaseAll();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #add(release: Release): void {
    if (this.#closing) {
      void Promise.resolve(release()).catch(() => {});
      throw new Error(`scope ${this.name} is closed`);
    }
    this.#owned.add(release);
  }

  async #releaseAll(): Promise<void> {
    this.#abort.abort(new Error(`scope ${this.name} closed`));
    const failures: unknown[] = [];
    for (const release of [...this.#owned].reverse()) {
      this.#owned.delete(release);
      try {
        await release();
      } catch (failure) {
        failures.push(failure);
      }
    }
    assert.equal(this.#owned.size, 0, `scope ${this.name} acquired something while closing`);
    if (failures.length === 1) throw failures[0];
    if (failures.length > 1) throw new AggregateError(failures, `closing scope ${this.name}`);
  }
}
