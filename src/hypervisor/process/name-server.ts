// Which domain has a name, for one process that asks: the shell's user is the machine's administrator.
//
// Invariant: at most MAX_LOOKUPS of a process wait; they end when they are answered, forgotten, or the process's
// domain is over.

import { ProtocolViolation, SysError } from '../../runtime/errors.ts';
import type { DomainNames } from '../domain-names.ts';
import { detailsOf } from '../remote/call-server.ts';
import { MAX_LOOKUPS } from './lookups.ts';
import type { LookUpAnswer, LookUpMessage } from './messages.ts';

export interface NameServerOptions {
  readonly names: DomainNames;
  readonly send: (answer: LookUpAnswer) => void;
}

export class NameServer {
  readonly #names: DomainNames;
  readonly #send: (answer: LookUpAnswer) => void;
  readonly #waiting = new Map<number, AbortController>();

  constructor({ names, send }: NameServerOptions) {
    this.#names = names;
    this.#send = send;
  }

  /** @throws ProtocolViolation when too many wait, or one has that number */
  lookUp({ lookUp, name, wait }: LookUpMessage): void {
    const domid = this.#names.find(name);
    if (domid !== undefined) this.#send({ lookUp, domid });
    else if (wait) this.#wait(lookUp, name);
    else this.#send({ lookUp, error: detailsOf(noSuchDomain(name)) });
  }

  forget(lookUp: number): void {
    this.#waiting.get(lookUp)?.abort();
    this.#waiting.delete(lookUp);
  }

  /** Nobody waits any more. */
  close(): void {
    for (const lookUp of [...this.#waiting.keys()]) this.forget(lookUp);
  }

  #wait(lookUp: number, name: string): void {
    if (this.#waiting.size >= MAX_LOOKUPS || this.#waiting.has(lookUp)) {
      throw new ProtocolViolation('too-many-lookups', 'XEN_EBUSY', `look-up ${lookUp}`);
    }
    const forgotten = new AbortController();
    this.#waiting.set(lookUp, forgotten);
    this.#names.appears(name, forgotten.signal).then(
      (domid) => {
        this.#waiting.delete(lookUp);
        this.#send({ lookUp, domid });
      },
      () => {},
    );
  }
}

function noSuchDomain(name: string): SysError {
  const remedy = 'start it first, or wait for it';
  const context = `there is no domain ${JSON.stringify(name.slice(0, 64))} on the machine`;
  return new SysError({ call: 'resolve', errnoName: 'ESRCH', context, remedy });
}
