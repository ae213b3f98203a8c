// A host in virtual time on which the daemon is a program that can be killed and started again, with guests that
// live on, and a person at their keyboards.

import assert from 'node:assert/strict';
import { Daemon, type DaemonOptions } from '../../src/daemon/daemon.ts';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';
import {
  type GuestKind,
  type GuestParts,
  HEIGHT,
  LinuxGuest,
  OurGuest,
  type PaintingGuest,
  WIDTH,
} from './guests.ts';
import { Program } from './program.ts';

const MACHINE_FRAMES = 4096;
const POOL_PAGES = 32;
const STEPS_MAX = 200_000;

/** How long a guest may be without its screen and keyboard after a daemon has started, in milliseconds. */
const RECOVERY_MS = 10_000;

/** How long there is no daemon: shorter than the patience of frontends, and longer (3 s for an answer). */
export const DOWN_MS = [0, 4000] as const;

/** Pressed before the daemon dies, and after. */
const KEY_BEFORE = 30;
const KEY_AFTER = 31;
const PERSON_LOOKS_MS = 20;

export interface WorldOptions extends Pick<GuestParts, 'beAlloc' | 'clientsMs'> {
  readonly seed: number;
  readonly kinds: readonly GuestKind[];
}

interface Inhabitant {
  readonly guest: Guest;
  readonly painter: PaintingGuest;
}

export class DaemonWorld {
  readonly runtime: VirtualRuntime;
  readonly #host: XenHost;
  readonly #inhabitants: readonly Inhabitant[];
  readonly #programs: Program[] = [];
  #program: Program | undefined;
  #daemon: Daemon | undefined;
  #failure: unknown;

  private constructor(host: XenHost, inhabitants: readonly Inhabitant[]) {
    this.runtime = host.runtime as VirtualRuntime;
    this.#host = host;
    this.#inhabitants = inhabitants;
  }

  /** A host with guests whose drivers have begun, and no daemon yet. */
  static async open({ seed, kinds, ...parts }: WorldOptions): Promise<DaemonWorld> {
    const runtime = new VirtualRuntime(seed);
    const host = await run(runtime, XenHost.start({ runtime, machineFrames: MACHINE_FRAMES }));
    const inhabitants: Inhabitant[] = [];
    for (const kind of kinds) {
      const guest = await run(
        runtime,
        host.createGuest({
          name: kind,
          displays: [{ uniqueId: kind, width: WIDTH, height: HEIGHT }],
          keyboard: true,
          beAlloc: parts.beAlloc,
        }),
      );
      const own = { runtime, domain: host.enter(guest), ...parts };
      const painter = kind === 'ours' ? new OurGuest(own) : new LinuxGuest(own);
      inhabitants.push({ guest, painter });
      void painter.start();
    }
    return new DaemonWorld(host, inhabitants);
  }

  get guests(): readonly PaintingGuest[] {
    return this.#inhabitants.map(({ painter }) => painter);
  }

  get daemon(): Daemon {
    assert(this.#daemon, 'the daemon has not started');
    return this.#daemon;
  }

  /** Calls that the present daemon has made. */
  get calls(): number {
    return this.#program?.calls ?? 0;
  }

  /** Starts a daemon, without waiting for it. A person then presses `key` at each guest, and leaves it down. */
  launch(key: number, output?: DaemonOptions['output']): Program {
    assert(!this.#program?.alive, 'a daemon runs');
    const program = new Program(this.#host);
    const { runtime, domain } = program;
    this.#programs.push(program);
    this.#program = program;
    this.#daemon = undefined;
    const budget = { ...DEFAULT_BUDGET, poolPages: POOL_PAGES };
    const options = { runtime, domain, budget, refreshHz: 60, hostPaths: {} };
    Daemon.start(output ? { ...options, output } : options).then(
      (daemon) => {
        this.#daemon = daemon;
        for (const { guest } of this.#inhabitants) void this.#person(program, guest, key);
      },
      (error: unknown) => {
        this.#failure = error;
      },
    );
    return program;
  }

  /** Runs the present daemon for so many steps of the whole world. */
  async steps(count: number): Promise<void> {
    for (let step = 0; step < count && (await this.runtime.step()); step++);
  }

  kill(): void {
    this.#program?.kill();
  }

  pause(delayMs: number): Promise<void> {
    return run(this.runtime, sleep(this.runtime, delayMs));
  }

  /** Why the daemon could not start, if so. */
  get failure(): unknown {
    return this.#failure;
  }

  guest(kind: GuestKind): PaintingGuest {
    return this.guests[this.#inhabitants.findIndex(({ guest }) => guest.name === kind)]!;
  }

  /** Runs until every guest has a keyboard that works, and presses `key` there. */
  async type(key: number): Promise<void> {
    for (const { pressed, domain } of this.guests) {
      const { domid } = domain;
      await this.until(() => this.daemon.input(domid)?.state === 'connected', 'a keyboard');
      this.daemon.input(domid)!.key(key, true);
      await this.until(() => pressed.includes(key), 'the key');
      this.daemon.input(domid)!.key(key, false);
    }
  }

  /** Runs until every guest has done `rounds` more rounds and has seen `key`, in the time allowed. */
  async recover(key: number, rounds = 1): Promise<void> {
    const before = this.guests.map((guest) => guest.rounds);
    const deadlineMs = this.runtime.nowMs() + RECOVERY_MS;
    const served = () => {
      assert.ifError(this.#failure);
      const all = this.guests.every(
        (guest, index) => guest.rounds >= before[index]! + rounds && guest.pressed.includes(key),
      );
      if (!all && this.runtime.nowMs() > deadlineMs) assert.fail(`not served: ${this.#report()}`);
      return all;
    };
    await this.until(served, 'every guest has its screen and its keyboard');
    await this.#look();
  }

  /** What the guests went through: nothing that asks for a reboot, nothing left down, their own pictures. */
  async #look(): Promise<void> {
    for (const guest of this.guests) {
      assert.deepEqual(guest.failures, []);
      assert.deepEqual([...guest.down], [KEY_AFTER], 'keys of the dead daemon go up');
      const { domid } = guest.domain;
      const shown = () => this.daemon.screen(domid, 0)?.shown;
      await this.until(() => shown() !== undefined, 'a picture');
      assert.equal(shown()!.bytes[0], guest.colour, 'the picture is the guest’s own');
    }
  }

  until(condition: () => boolean, what: string): Promise<void> {
    return this.runtime.runUntil(condition, { what, maxSteps: STEPS_MAX });
  }

  /** Takes the guests away, and ends the daemon in good order: nothing may be left of any of them. */
  async close(): Promise<void> {
    const { daemon } = this;
    for (const { guest } of this.#inhabitants) await run(this.runtime, guest.destroy());
    await this.until(() => daemon.status().guests.length === 0, 'every guest is forgotten');
    await run(this.runtime, daemon[Symbol.asyncDispose]());
    await this.switchOff();
  }

  /** Kills the daemon, if it runs, and takes the guests away: nothing may be left. */
  async switchOff(): Promise<void> {
    this.kill();
    for (const { guest } of this.#inhabitants) await run(this.runtime, guest.destroy());
    for (const program of this.#programs) await run(this.runtime, program.buried());
    const left = () => {
      const { hypervisor, xenstored } = this.#host;
      const leaks = leakReport(hypervisor.books());
      // Domain 0's own.
      const connections = xenstored.connections - 1;
      return connections > 0 ? [...leaks, `${connections} connections to xenstored`] : leaks;
    };
    await this.until(() => left().length === 0, 'nothing is left').catch(() => {});
    assert.deepEqual(left(), []);
    await run(this.runtime, this.#host[Symbol.asyncDispose]());
  }

  async #person(program: Program, { domid }: Guest, key: number): Promise<void> {
    for (;;) {
      await sleep(this.runtime, PERSON_LOOKS_MS);
      if (!program.alive) return;
      const input = this.#daemon?.input(domid);
      if (input?.state !== 'connected') continue;
      input.key(key, true);
      return;
    }
  }

  #report(): string {
    const guests = this.guests.map(({ rounds, flips, pressed, failures }) => ({
      rounds,
      flips,
      pressed,
      failures: failures.map(String),
    }));
    return JSON.stringify({ guests, status: this.#daemon?.status().guests }, null, 1);
  }
}

function run<T>(runtime: VirtualRuntime, promise: Promise<T>): Promise<T> {
  return runUntilSettled(runtime, promise, STEPS_MAX);
}

export interface DeathOptions extends WorldOptions {
  /** How long there is no daemon. */
  readonly downMs: number;
}

/** How many steps, and calls of the daemon's, a first life takes until every guest has done a round. */
export async function lifeOf(options: WorldOptions): Promise<{ steps: number; calls: number }> {
  const world = await DaemonWorld.open(options);
  world.launch(KEY_BEFORE);
  const from = world.runtime.steps;
  const done = () =>
    world.guests.every(({ rounds, pressed }) => rounds >= 1 && pressed.includes(KEY_BEFORE));
  await world.until(done, 'a first life');
  const { steps } = world.runtime;
  const { calls } = world;
  return { steps: steps - from, calls };
}

/** A world in which the daemon dies as `die` says, and the next one must take up its guests. */
export async function deathAndRecovery(
  { downMs, ...options }: DeathOptions,
  die: (world: DaemonWorld, program: Program) => Promise<void>,
): Promise<void> {
  const world = await DaemonWorld.open(options);
  await die(world, world.launch(KEY_BEFORE));
  world.kill();
  await world.pause(downMs);
  world.launch(KEY_AFTER);
  await world.recover(KEY_AFTER);
  await world.close();
}

/** Lives one after the other, each killed after as many steps, and then one that is left alone. */
export async function manyDeaths(
  options: WorldOptions,
  lives: readonly { readonly steps: number; readonly downMs: number }[],
): Promise<void> {
  const world = await DaemonWorld.open(options);
  for (const { steps, downMs } of lives) {
    world.launch(KEY_BEFORE);
    await world.steps(steps);
    world.kill();
    await world.pause(downMs);
  }
  world.launch(KEY_AFTER);
  await world.recover(KEY_AFTER);
  await world.close();
}
