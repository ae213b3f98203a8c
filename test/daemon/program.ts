// A program in domain 0 whose calls of the hypervisor and of xenstored are counted, and that is killed, or refused
// something, at one of them. How it dies, and what its kernel does then, is the simulation's (sim/program.ts).

import { Faults } from '../../sim/faults.ts';
import { Program as Killable } from '../../sim/program.ts';
import { programDomain } from '../../sim/program-domain.ts';
import { connectStore } from '../../sim/store-connection.ts';
import { Trace } from '../../sim/trace.ts';
import type { XenHost } from '../../src/hypervisor/xen-host.ts';
import { type Runtime, sleep } from '../../src/runtime/runtime.ts';
import type { Domain } from '../../src/xen/domain.ts';
import { DOM0 } from '../../src/xen/ids.ts';

/** A call that Xen refuses for other domains' ports alone. */
const CANNOT_FAIL = 'closePort';
/** How often to look whether a dead program is buried, in milliseconds of virtual time. */
const LOOK_MS = 100;

export class Program {
  readonly runtime: Runtime;
  readonly domain: Domain;
  readonly #program: Killable;
  /** The world's. */
  readonly #runtime: Runtime;
  #calls = 0;
  #lastCall = Number.POSITIVE_INFINITY;
  #failing: { readonly call: number; readonly error: Error } | undefined;

  constructor(host: XenHost) {
    const { runtime } = host;
    const { random, log } = runtime;
    const program = new Killable({ runtime, random, log, onCall: (name) => this.#onCall(name) });
    const { store } = connectStore({ runtime, host }, { program, domid: DOM0 });
    const trace = new Trace({ readable: false });
    const faults = new Faults({ seed: 0, trace, muted: new Set() });
    faults.heal();
    const parts = { runtime, program, domain: host.dom0, store, faults, trace };
    this.runtime = program;
    this.domain = programDomain({ ...parts, atOnce: true });
    this.#program = program;
    this.#runtime = runtime;
  }

  /** How many calls it made of the hypervisor and of xenstored. */
  get calls(): number {
    return this.#calls;
  }

  get alive(): boolean {
    return this.#program.alive;
  }

  /** Resolves when nobody has anything of the dead program's. */
  async buried(): Promise<void> {
    while (this.#program.held > 0) await sleep(this.#runtime, LOOK_MS);
  }

  /** Kills it as it is about to make its call number `calls`. */
  killAtCall(calls: number): void {
    this.#lastCall = calls - 1;
  }

  /** Its call number `call` does nothing and throws, unless it is one that cannot fail. */
  failCall(call: number, error: Error): void {
    this.#failing = { call, error };
  }

  /** SIGKILL. */
  kill(): void {
    this.#program.kill();
  }

  #onCall(name: string): void {
    if (this.#calls >= this.#lastCall) this.kill();
    if (!this.alive) return;
    this.#calls += 1;
    if (name !== CANNOT_FAIL && this.#calls === this.#failing?.call) throw this.#failing.error;
  }
}
