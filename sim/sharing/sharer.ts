// A program of a guest that shares with the programs of other guests: exports to each of them in turn, and imports what they
// export to it. It dies as a program does, while its domain lives on, and another one takes its place.
//
// Invariants: one program at a time; it has a connection to xenstored of its own, as a process has with its kernel, and
// all that it held is given back by its kernel.

import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { messageOf, ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import type { Random } from '../../src/runtime/random.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { Exporter } from '../../src/share/exporter.ts';
import { ShareError, type ShareErrorReason } from '../../src/share/share-error.ts';
import { type Domain, GrantMapError } from '../../src/xen/domain.ts';
import type { DomId } from '../../src/xen/ids.ts';
import { between, happens, oneOf, streamOf } from '../chance.ts';
import { Program } from '../program.ts';
import { programDomain } from '../program-domain.ts';
import { connectStore } from '../store-connection.ts';
import type { Surroundings } from '../surroundings.ts';
import { exportTo } from './exports.ts';
import { borrowFrom, lendTo } from './hand-over.ts';
import { importFrom } from './imports.ts';

/** Time between a program's death and its successor, and between two shares, in milliseconds. */
const DOWN_MS = [1, 1000] as const;
const PAUSE_MS = [1, 200] as const;

/** Shares that a program exports at a time: one partner that lets it wait does not hold up the others. */
const EXPORTS = 2;
/** One program in so many has a rival in its own domain. */
const RIVAL_ONE_IN = 4;

/** What a partner that keeps the rules never gives a reason for. */
const NEVER: readonly ShareErrorReason[] = [
  'malformed',
  'unsupported-version',
  'oversized-metadata',
  'not-a-stream',
  'not-writable',
];

/** What the loops of a program work with. */
export interface Sharing {
  readonly world: Surroundings;
  readonly program: Program;
  readonly domain: Domain;
  readonly random: Random;
  /** Aborts when the program is to end in good order. */
  readonly leaving: AbortSignal;
  /** Domains that share, but for its own. */
  peers(): DomId[];
  /** One that keeps the rules has taken a frame of ours, or we one of its. */
  sent(to: DomId): void;
  received(from: DomId): void;
  /** Failures of the system and of the partner are met with patience; anything else is a defect of somebody's. */
  judge(error: unknown, partner?: DomId): void;
}

export class Sharer {
  readonly domid: DomId;
  readonly #world: Surroundings;
  /** The domain's kernel. */
  readonly #kernel: GuestDomain;
  #program: Program | undefined;
  #sever: () => void = () => {};
  #leave: () => Promise<void> = async () => {};
  #programs = 0;
  #sent = 0;
  #received = 0;
  #over = false;

  constructor(world: Surroundings, kernel: GuestDomain) {
    this.#world = world;
    this.#kernel = kernel;
    this.domid = kernel.domid;
  }

  /** Frames of its that somebody took. */
  get framesSent(): number {
    return this.#sent;
  }

  /** Frames that it took. */
  get framesReceived(): number {
    return this.#received;
  }

  start(): void {
    if (this.#kernel.stopped.aborted) return;
    this.#kernel.stopped.addEventListener('abort', () => this.end(), { once: true });
    this.#world.sharers.add(this.domid);
    this.#begin();
  }

  /** The program dies; another one comes. */
  kill(): void {
    if (this.#over) return;
    this.#program?.kill();
    this.#program = undefined;
    const { runtime, seed } = this.#world;
    const random = streamOf(seed, `sharer ${this.domid} after ${this.#programs}`);
    runtime.after(between(random, ...DOWN_MS), () => {
      if (!this.#over && this.#program === undefined) this.#begin();
    });
  }

  /** The program takes everything back and ends; another one comes. */
  leave(): Promise<void> {
    return this.#leave();
  }

  /** Xenstored is lost to the program, which ends when it hears of that. */
  loseStore(): void {
    this.#sever();
  }

  /** Its domain is over. */
  end(): void {
    this.#over = true;
    this.#program?.kill();
    this.#world.sharers.delete(this.domid);
  }

  #begin(): void {
    const { runtime, seed, faults, trace } = this.#world;
    this.#programs += 1;
    const name = `sharer ${this.domid} ${this.#programs}`;
    const random = streamOf(seed, name);
    const program = new Program({ runtime, random, log: runtime.log });
    this.#program = program;
    const { store, sever } = connectStore(this.#world, { program, domid: this.domid });
    this.#sever = sever;
    // Without xenstore a program that shares ends, as `xen-zcopy share` does.
    void store.closed.then(() => this.#program === program && this.kill());
    const parts = { runtime, program, domain: this.#kernel, store, faults, trace };
    const domain = this.#world.throughSharing(programDomain(parts));
    const leaving = new AbortController();
    const sharing: Sharing = {
      world: this.#world,
      program,
      domain,
      random,
      leaving: leaving.signal,
      peers: () => [...this.#world.sharers].filter((domid) => domid !== this.domid),
      sent: (to) => {
        if (this.#world.keepsRules(to)) this.#sent += 1;
      },
      received: (from) => {
        if (this.#world.keepsRules(from)) this.#received += 1;
      },
      judge: (error, partner) => this.#judge(error, partner),
    };
    const own = name.replaceAll(' ', '-');
    const identity = { own, isAlive: (other: string) => other === own };
    const exporter = new Exporter({ runtime: program, domain, program: identity });
    this.#leave = async () => {
      leaving.abort();
      const closed = exporter[Symbol.asyncDispose]();
      await closed.catch((error: unknown) => this.#judge(error, undefined));
      if (this.#program === program) this.kill();
    };
    const again = (work: () => Promise<void>) => void this.#repeat(sharing, work);
    let turn = 0;
    const next = async () => {
      const peers = sharing.peers();
      if (peers.length > 0) await exportTo(sharing, exporter, peers[turn++ % peers.length]!);
    };
    for (let loop = 0; loop < EXPORTS; loop++) again(next);
    again(() => importFrom(sharing));
    // As if another program of the domain wanted the same shares.
    if (happens(random, RIVAL_ONE_IN)) again(() => importFrom(sharing));
    const withSomebody = async (work: (sharing: Sharing, peer: DomId) => Promise<void>) => {
      const peers = sharing.peers();
      if (peers.length > 0) await work(sharing, oneOf(random, peers));
    };
    again(() => withSomebody(lendTo));
    again(() => withSomebody(borrowFrom));
  }

  /** Does it again and again, until the program is to end. */
  async #repeat({ program, random, leaving }: Sharing, work: () => Promise<void>): Promise<void> {
    while (!leaving.aborted) {
      await work().catch((error: unknown) => this.#judge(error, undefined));
      await sleep(program, between(random, ...PAUSE_MS));
    }
  }

  #judge(error: unknown, partner: DomId | undefined): void {
    if (error instanceof AggregateError) {
      for (const each of error.errors) this.#judge(each, partner);
      return;
    }
    const system =
      error instanceof SysError || error instanceof GrantMapError || isOverBudget(error);
    const liar = partner !== undefined && !this.#world.keepsRules(partner);
    const known = liar
      ? error instanceof ShareError || error instanceof ProtocolViolation
      : error instanceof ShareError && !NEVER.includes(error.reason);
    this.#world.findings.hold(system || known, 'defect', () => {
      return `the sharing program of domain ${this.domid}: ${messageOf(error)}`;
    });
  }
}

/** What a program may lend, or map, at a time is bounded by itself. */
function isOverBudget(error: unknown): boolean {
  return error instanceof ProtocolViolation && error.reason.startsWith('over-budget');
}
