// The hypervisor's side of a domain whose code runs elsewhere: takes its notifications, does its hypercalls,
// and ends it when it breaks the rules.
//
// Invariant: a guest's notifications and calls take effect in the order in which it made them, as long as
// whoever receives its messages takes the notifications before each.

import { messageOf, ProtocolViolation, SysError } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/runtime.ts';
import type { Port } from '../../xen/ids.ts';
import type { HostedDomain } from '../hosted-domain.ts';
import { type HypercallName, HypercallTable, type HypercallWorld } from '../hypercalls.ts';
import { notRunning } from '../local-port.ts';
import { checkRequest } from './check-request.ts';
import type { Doorbell } from './doorbell.ts';
import type { AnswerMessage, CallMessage } from './messages.ts';

export interface CallServerOptions {
  readonly world: HypercallWorld;
  readonly domain: HostedDomain;
  readonly doorbell: Doorbell;
  readonly log: Logger;
}

export class CallServer {
  readonly #world: HypercallWorld;
  readonly #domain: HostedDomain;
  readonly #calls: HypercallTable;
  readonly #doorbell: Doorbell;
  readonly #log: Logger;
  readonly #send = (port: Port) => {
    this.#domain.ports.send(port);
  };

  constructor({ world, domain, doorbell, log }: CallServerOptions) {
    this.#world = world;
    this.#domain = domain;
    this.#calls = new HypercallTable(world, domain);
    this.#doorbell = doorbell;
    this.#log = log;
  }

  /** What the guest has rung for takes effect. */
  takeNotifications(): void {
    if (this.#domain.state === 'running') this.#doorbell.take(this.#send);
  }

  /** Does a call. @throws ProtocolViolation when its request is malformed */
  answer({ call, id, request }: CallMessage): AnswerMessage {
    try {
      if (this.#domain.state !== 'running') throw notRunning(call, this.#domain);
      return { id, result: this.#execute(call, request) };
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      return { id, error: detailsOf(error) };
    }
  }

  /** The guest broke the rules, or failed: `what` says of which part of it an error is. */
  crash(error: unknown, what: string): void {
    const { domid, name, state } = this.#domain;
    if (state !== 'running') return;
    const violation = error instanceof ProtocolViolation;
    const reason = violation ? error.message : `its ${what} failed: ${messageOf(error)}`;
    this.#log.warn({ domid, name, reason }, 'a guest crashed');
    this.#world.shutdown(domid, 'crash');
  }

  #execute<N extends HypercallName>(name: N, request: unknown): unknown {
    const call = this.#calls[name] as (checked: unknown) => unknown;
    return call.call(this.#calls, checkRequest(name, request));
  }
}

/** What of an error goes into a message. */
export function detailsOf({ call, errnoName, context, remedy }: SysError) {
  const details = { call, errnoName, context };
  return remedy === undefined ? details : { ...details, remedy };
}
