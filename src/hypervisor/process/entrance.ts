// Where a process becomes a domain of the machine, and by what rules.
//
// Invariants: no two running domains have one name by this way; there are never more processes than were
// allowed; a process that is gone before its domain is made leaves nothing.

import { SysError } from '../../runtime/errors.ts';
import type { Guest } from '../guest.ts';
import type { DomainLimits, HostedDomain } from '../hosted-domain.ts';
import { notRunning } from '../local-port.ts';
import type { XenHost } from '../xen-host.ts';
import { GuestProcess } from './guest-process.ts';
import type { MessageStream } from './message-stream.ts';
import { type EnterMessage, PROTOCOL_VERSION } from './messages.ts';

const DEFAULT_MAX_GUESTS = 64;
/** 256 MiB of shared pages, twice over: they need 128 pages of grant table. */
const DEFAULT_LIMITS: Partial<DomainLimits> = { maxFrames: 2 ** 17, maxGrantFrames: 257 };
/** How long the processes may take to let go when the entrance is closed. */
const LEAVE_PATIENCE_MS = 2_000;

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$/;

export interface EntranceOptions {
  readonly host: XenHost;
  /** Of each process; what is left out is enough for 256 MiB of shared pages. */
  readonly limits?: Partial<DomainLimits>;
  /** Processes at a time. */
  readonly maxGuests?: number;
}

export class Entrance {
  readonly maxGuests: number;
  readonly #host: XenHost;
  readonly #limits: Partial<DomainLimits>;
  readonly #guests = new Set<Guest>();
  /** Domains that are being made. */
  readonly #entering = new Set<Promise<Guest>>();
  #closed = false;

  constructor({ host, limits = {}, maxGuests = DEFAULT_MAX_GUESTS }: EntranceOptions) {
    this.#host = host;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
    this.maxGuests = maxGuests;
  }

  /** Makes a domain that the process behind the stream, which is paused, runs in. @throws SysError */
  async enter({ enter: name, version }: EnterMessage, stream: MessageStream): Promise<void> {
    this.#check(name, version);
    const config = { name, limits: this.#limits };
    const created = this.#host.createGuestElsewhere(config, (domain) =>
      this.#connect(domain, stream),
    );
    this.#entering.add(created);
    try {
      const guest = await created;
      this.#guests.add(guest);
      void guest.gone.then(() => this.#guests.delete(guest));
    } finally {
      this.#entering.delete(created);
    }
    stream.resume();
  }

  /** Ends the domains; processes that do not let go in time are cut off. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#entering);
    const guests = [...this.#guests];
    const gone = Promise.all(guests.map((guest) => guest.destroy()));
    const cutOff = this.#host.runtime.after(LEAVE_PATIENCE_MS, () => {
      for (const guest of guests) guest.cutOff();
    });
    await gone.finally(() => cutOff.cancel());
  }

  #connect(domain: HostedDomain, stream: MessageStream): GuestProcess {
    if (domain.state !== 'running') throw notRunning('enter', domain);
    if (stream.closed) throw refused(GONE);
    const { hypervisor: world, names, runtime } = this.#host;
    return new GuestProcess({ world, domain, names, stream, runtime });
  }

  #check(name: string, version: number): void {
    if (this.#closed) throw refused(CLOSED);
    if (version !== PROTOCOL_VERSION) throw refused(OTHER_VERSION);
    if (!NAME.test(name)) throw refused(NO_NAME);
    const running = [...this.#host.hypervisor.domains].filter(({ state }) => state === 'running');
    if (running.some((domain) => domain.name === name)) {
      const context = `entering as ${name}, which is the name of a running domain`;
      throw refused({ errnoName: 'EEXIST', context, remedy: 'choose another name' });
    }
    if (this.#guests.size + this.#entering.size >= this.maxGuests) {
      const context = `entering a machine that ${this.maxGuests} processes have entered`;
      throw refused({ errnoName: 'EUSERS', context, remedy: 'let one of them leave' });
    }
  }
}

interface Refusal {
  readonly errnoName: string;
  readonly context: string;
  readonly remedy: string;
}

const CLOSED: Refusal = {
  errnoName: 'ESHUTDOWN',
  context: 'entering a machine that is being switched off',
  remedy: 'start it again',
};
const GONE: Refusal = {
  errnoName: 'ECONNRESET',
  context: 'entering a machine by a connection that is over',
  remedy: 'try again',
};
const OTHER_VERSION: Refusal = {
  errnoName: 'EPROTO',
  context: 'entering a machine of another version',
  remedy: 'run the same version of xen-zcopy on both sides',
};
const NO_NAME: Refusal = {
  errnoName: 'EINVAL',
  context: 'entering under a name that no domain can have',
  remedy: 'take up to 64 letters, digits and any of _ . + -, with a letter or digit first',
};

function refused(refusal: Refusal): SysError {
  return new SysError({ call: 'enter', ...refusal });
}
