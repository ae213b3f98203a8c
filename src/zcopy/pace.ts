// How fast one guest may make us work: a token bucket for each kind of work. What a guest did not use in the last
// second it may use at once; beyond that it waits, as its ring fills and its ports stay masked (XSA-332).
//
// Work is entered when it is done, in slices that are bounded by whoever does them, and paid for afterwards by
// rest: so an answer is never late, and an overdraft is at most one slice for each ring and port.

import { RateLimit } from '../runtime/rate-limit.ts';
import { type Runtime, sleep } from '../runtime/runtime.ts';
import type { RateKind } from '../xen/xenbus/driver.ts';
import { RATE_KINDS } from './budget.ts';
import type { Account } from './ledger.ts';

/** Shortest rest, in milliseconds: a flood of little things wakes us up for many of them at a time. */
const REST_MIN_MS = 10;
/** Longest rest, in milliseconds: a request that waits meanwhile is still answered within the frontend's 3 s. */
const REST_MAX_MS = 1000;

export class Pace {
  readonly #runtime: Runtime;
  readonly #account: Account;
  readonly #limits: ReadonlyMap<RateKind, RateLimit>;

  /** By the account's budget of now; what is beyond it is counted there. */
  constructor(runtime: Runtime, account: Account) {
    this.#runtime = runtime;
    this.#account = account;
    this.#limits = new Map(
      RATE_KINDS.map((kind) => {
        const perSecond = account.budget[kind];
        return [kind, new RateLimit(runtime, { perSecond, burst: perSecond })];
      }),
    );
  }

  /** As `GuestContext.spend`. */
  spend(kind: RateKind, amount: number): void {
    this.#limits.get(kind)!.spend(amount);
  }

  /** As `GuestContext.rest`. */
  rest(kind: RateKind, signal: AbortSignal): Promise<void> | undefined {
    const { overdrawnMs } = this.#limits.get(kind)!;
    if (overdrawnMs === 0) return undefined;
    this.#account.countThrottle(kind);
    if (signal.aborted) return Promise.resolve();
    const restMs = Math.min(Math.max(overdrawnMs, REST_MIN_MS), REST_MAX_MS);
    return sleep(this.#runtime, restMs, signal).catch(() => {});
  }
}
