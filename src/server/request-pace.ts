// How much the bearer of one token may make us do by requests: beyond its rate it is told when to come again, before
// its body is read (429, RFC 6585). What viewers say on their WebSockets is viewer-pace.ts's.
//
// Invariants: a bearer pays for what was done for it alone, and after it was done, so that one within the rate is
// never refused; others do not pay with it.

import { RateLimit } from '../runtime/rate-limit.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { HttpError } from './http-error.ts';
import type { Permit } from './permit.ts';

/** Of a request, whatever it asks. */
const REQUEST_WORK = 1;
/** An event of input is about as long, and costs as much again. */
const BYTES_PER_WORK = 32;

export class RequestPace {
  readonly #runtime: Runtime;
  readonly #workPerSecond: number;
  readonly #limits = new WeakMap<Permit, RateLimit>();

  /** `workPerSecond`: as much may be done at once for a bearer that has been quiet. */
  constructor(runtime: Runtime, workPerSecond: number) {
    this.#runtime = runtime;
    this.#workPerSecond = workPerSecond;
  }

  /** @throws HttpError 429 with the time to wait, while what was done is not paid for */
  check(permit: Permit): void {
    const { overdrawnMs } = this.#limitOf(permit);
    if (overdrawnMs === 0) return;
    const headers = { 'retry-after': String(Math.ceil(overdrawnMs / 1000)) };
    const message = 'too many requests with this token';
    throw new HttpError(429, message, { headers, reason: 'too-many-requests' });
  }

  /** A request with a body of that length is served. */
  spend(permit: Permit, bodyBytes: number): void {
    this.#limitOf(permit).spend(REQUEST_WORK + Math.ceil(bodyBytes / BYTES_PER_WORK));
  }

  #limitOf(permit: Permit): RateLimit {
    let limit = this.#limits.get(permit);
    if (limit === undefined) {
      limit = new RateLimit(this.#runtime, {
        perSecond: this.#workPerSecond,
        burst: this.#workPerSecond,
      });
      this.#limits.set(permit, limit);
    }
    return limit;
  }
}
