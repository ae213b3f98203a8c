// What a guest was refused: every refusal is counted by its reason, and a reason is logged when it
// comes up and then at most once a minute, so that a guest cannot write our logs for us.
// Reasons are words of this program, never a guest's, so their number is bounded.

import type { ProtocolViolation, SysError } from '../runtime/errors.ts';
import { RateLimit } from '../runtime/rate-limit.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { BackendDevice } from '../xen/xenbus/driver.ts';

const LOG_LINES_PER_SECOND = 1 / 60;

export class Refusals {
  readonly #runtime: Runtime;
  readonly #device: BackendDevice;
  readonly #limits = new Map<string, RateLimit>();

  constructor(runtime: Runtime, device: BackendDevice) {
    this.#runtime = runtime;
    this.#device = device;
  }

  /** The guest broke a rule, or its budget is spent. */
  add({ reason, message }: ProtocolViolation): void {
    this.#device.guest.countRefusal(reason);
    if (this.#mayLog(reason)) this.#device.log.warn({ reason }, message);
  }

  /** The system could not do what the guest asked for. */
  addFailure({ errnoName, message }: SysError): void {
    const reason = `system-${errnoName.toLowerCase()}`;
    this.#device.guest.countRefusal(reason);
    if (this.#mayLog(reason)) this.#device.log.error({ reason }, message);
  }

  #mayLog(reason: string): boolean {
    let limit = this.#limits.get(reason);
    if (limit === undefined) {
      limit = new RateLimit(this.#runtime, { perSecond: LOG_LINES_PER_SECOND, burst: 1 });
      this.#limits.set(reason, limit);
    }
    return limit.tryTake();
  }
}
