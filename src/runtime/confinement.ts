// Work for one party, walled off from everybody else's: what it throws, at once, in its promises, or later in its
// timers, goes to that party's own failure handler, and neither to the caller nor to the process.
//
// A daemon that serves many guests enters each one's work here and nowhere else, so that a bug that one guest can
// reach takes that guest's service down and no other's. What is thrown outside of any confinement is a bug of the
// whole process, and ends it.

import type { Runtime } from './runtime.ts';

/** Work with at most one argument: what events, timers and outputs call. */
export type Work<A> = (argument: A) => void | Promise<void>;

export class Confinement {
  /** Its tasks run in the confinement. */
  readonly runtime: Runtime;
  readonly #onFailure: (error: Error) => void;

  /** `onFailure` is told of everything that was thrown, and must not throw itself. */
  constructor(runtime: Runtime, onFailure: (error: Error) => void) {
    this.#onFailure = onFailure;
    this.runtime = {
      random: runtime.random,
      log: runtime.log,
      nowMs: () => runtime.nowMs(),
      wallMs: () => runtime.wallMs(),
      after: (delayMs, task) => runtime.after(delayMs, this.wrap(task)),
      defer: (task) => runtime.defer(this.wrap(task)),
    };
  }

  /** `work`, to be called by anybody: it never throws, and a promise that it returns never rejects. */
  wrap<A = void>(work: Work<A>): Work<A> {
    return (argument) => {
      try {
        const pending = work(argument);
        if (pending !== undefined) return pending.catch(this.#failed);
      } catch (error) {
        this.#failed(error);
      }
    };
  }

  /** Does `work` now, in the confinement; nobody waits for what it does later. */
  enter(work: Work<void>): void {
    void this.wrap(work)();
  }

  readonly #failed = (thrown: unknown): void => {
    this.#onFailure(thrown instanceof Error ? thrown : new Error(String(thrown)));
  };
}
