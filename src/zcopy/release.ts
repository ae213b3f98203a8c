// Release as a fact that can be observed (law 4): the steps by which something that others may still use is
// given back, done one after the other, tried again until they succeed, and watched by whoever needs to know.
//
// Life: live, releasing, released; quarantined between the last two, while somebody holds it longer than the
// one who released it would wait. Invariants:
// - A release that has begun goes on until it is done, whoever stops waiting for it and however often a step
//   fails. `released` resolves once and never rejects.
// - Steps are tried in their order, never two at once, at a pace that slows down to RETRY_MAX_MS.
// - A handle is this object: nothing is named by a number that could be used again.

import assert from 'node:assert/strict';
import { messageOf, SysError } from '../runtime/errors.ts';
import { type Runtime, type Timer, withTimeout } from '../runtime/runtime.ts';

export type ReleaseState = 'live' | 'releasing' | 'quarantined' | 'released';

/** Who still has something. */
export interface Holder {
  /** In words for people: `the guest`, `an importer of the dma-buf`, `the output`. */
  readonly who: string;
  readonly pages: number;
  /** How that is known, or what failed at the last try. */
  readonly evidence: string;
}

/** How a release went for one who waited for it. */
export type ReleaseOutcome =
  | { readonly state: 'released' }
  | { readonly state: 'quarantined'; readonly holders: readonly Holder[] };

/** One thing to be given back. */
export interface ReleaseStep {
  /** Who holds it while a try is under way. */
  readonly holder: Holder;
  /** One try: who still holds it, or undefined when it is given back. @throws SysError to be tried again */
  attempt(): Promise<Holder | undefined>;
}

export interface ReleaseWait {
  /** How long to wait at most; without it, as long as it takes. */
  readonly timeoutMs?: number;
  /** Ends the waiting, not the release. */
  readonly signal?: AbortSignal;
}

/** Time between two tries of a step, in milliseconds: doubled each time, between these. */
const RETRY_MIN_MS = 1;
const RETRY_MAX_MS = 500;

export interface ReleaseOptions {
  readonly runtime: Runtime;
  readonly steps: readonly ReleaseStep[];
  readonly onState?: (state: ReleaseState) => void;
}

export class Release {
  /** Resolves when everything is given back. */
  readonly released: Promise<void>;
  readonly #runtime: Runtime;
  readonly #steps: ReleaseStep[];
  readonly #onState: (state: ReleaseState) => void;
  #finish: () => void = () => {};
  #state: ReleaseState = 'live';
  #holder: Holder | undefined;
  #retry: { readonly timer: Timer; readonly now: () => void } | undefined;

  constructor({ runtime, steps, onState = () => {} }: ReleaseOptions) {
    this.#runtime = runtime;
    this.#steps = [...steps];
    this.#onState = onState;
    this.released = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  get state(): ReleaseState {
    return this.#state;
  }

  /** Who is waited for now; nobody before the release and after it. */
  get holders(): readonly Holder[] {
    return this.#holder === undefined ? [] : [this.#holder];
  }

  /**
   * Begins the release, or waits for one that has begun. Any number may wait.
   * @returns what became of it within the time: after a time-out it is quarantined and goes on by itself
   * @throws the reason of `signal` when that is aborted first
   */
  async release({ timeoutMs, signal }: ReleaseWait = {}): Promise<ReleaseOutcome> {
    signal?.throwIfAborted();
    if (this.#state === 'live') this.#begin();
    if (signal === undefined) return this.#wait(this.released, timeoutMs);
    using abort = abortOf(signal);
    return await this.#wait(Promise.race([this.released, abort.aborted]), timeoutMs);
  }

  /** Tries at once instead of at the next turn: something has changed, as when a domain is gone. */
  hurry(): void {
    this.#retry?.now();
  }

  async #wait(done: Promise<void>, timeoutMs: number | undefined): Promise<ReleaseOutcome> {
    if (timeoutMs === undefined) {
      await done;
      return { state: 'released' };
    }
    const late = new Error('the time to wait is over');
    try {
      await withTimeout(this.#runtime, done, { timeoutMs, onTimeout: () => late });
      return { state: 'released' };
    } catch (error) {
      if (error !== late) throw error;
      this.#quarantine();
      return { state: 'quarantined', holders: this.holders };
    }
  }

  #begin(): void {
    this.#enter('releasing');
    void this.#run();
  }

  #quarantine(): void {
    if (this.#state === 'releasing') this.#enter('quarantined');
  }

  #enter(state: ReleaseState): void {
    this.#state = state;
    this.#onState(state);
  }

  async #run(): Promise<void> {
    let delayMs = RETRY_MIN_MS;
    for (let step = this.#steps[0]; step !== undefined; step = this.#steps[0]) {
      this.#holder = step.holder;
      this.#holder = await this.#try(step);
      if (this.#holder === undefined) {
        this.#steps.shift();
        delayMs = RETRY_MIN_MS;
      } else {
        await this.#pause(delayMs);
        delayMs = Math.min(delayMs * 2, RETRY_MAX_MS);
      }
    }
    this.#enter('released');
    this.#finish();
  }

  /** A failure of the system is a try that did not succeed; anything else is a bug, which is logged and held. */
  async #try(step: ReleaseStep): Promise<Holder | undefined> {
    try {
      return await step.attempt();
    } catch (error) {
      if (!(error instanceof SysError)) {
        this.#runtime.log.error({ err: error, who: step.holder.who }, 'a step of a release failed');
      }
      return { ...step.holder, evidence: messageOf(error) };
    }
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const now = () => {
        this.#retry?.timer.cancel();
        this.#retry = undefined;
        resolve();
      };
      assert(this.#retry === undefined, 'two tries of one release');
      this.#retry = { timer: this.#runtime.after(delayMs, now), now };
    });
  }
}

/** Rejects with the signal's reason when it aborts; listens to it until it is disposed. */
function abortOf(signal: AbortSignal): Disposable & { readonly aborted: Promise<never> } {
  let onAbort: () => void = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
  });
  signal.addEventListener('abort', onAbort, { once: true });
  return { aborted, [Symbol.dispose]: () => signal.removeEventListener('abort', onAbort) };
}
