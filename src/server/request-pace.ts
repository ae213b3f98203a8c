// How much the bearer of one token may make us do by requests: beyond its rate it is told when to come again, before
// its body is read (429, RFC 6585). What viewers say on their WebSockets is viewer-pace.ts's.
//
// Invariants: a bearer pays for its own requests alone, for those that are refused for what they ask as well, and never
// beforehand: one within the rate is not told to wait.

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

  /** A request has come. @throws HttpError 429 with the time to wait, while those before it are not paid for */
  request(permit: Permit): void {
    const limit = this.#limitOf(permit);
    const { overdrawnMs } = limit;
    if (overdrawnMs === 0) {
      limit.spend(REQUEST_WORK);
      return;
    }
    const headers = { 'retry-after': String(Math.ceil(overdrawnMs / 1000)) };
    const message = 'too many requests with this token';
    throw new HttpError(429, message, { headers, reason: 'too-many-requests' });
  }

  /** It has this body. */
  body(permit: Permit, bytes: number): void {
    this.#limitOf(permit).spend(Math.ceil(bytes / BYTES_PER_WORK));
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
