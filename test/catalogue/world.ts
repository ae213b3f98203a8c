// The world of the failure catalogue: the real daemon in virtual time, an honest guest that never stops, and
// a hostile one that a test scripts. `survives` is what every case has in common: whatever the script did,
// the daemon lives, the honest guest's picture and input never stopped, nothing of the hostile guest is left
// once it is gone, and no assertion of ours went off on the way.

import assert from 'node:assert/strict';
import { RawFrontend, type RawWorld } from '../../sim/guests/raw-frontend.ts';
import { Daemon } from '../../src/daemon/daemon.ts';
import type { GuestStatus } from '../../src/daemon/status.ts';
import type { ConnectorInfo, OutputConnector } from '../../src/display/output.ts';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDevices } from '../../src/hypervisor/toolstack.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { BrowserOutput } from '../../src/outputs/browser/browser-output.ts';
import type { OutputStatus } from '../../src/outputs/output-status.ts';
import type { Screen } from '../../src/outputs/screen.ts';
import type { ScreenOutput, ScreenOutputOptions } from '../../src/outputs/screen-output.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import type { VirtualRuntime } from '../../src/runtime/virtual.ts';
import type { DomId } from '../../src/xen/ids.ts';
import { type Budget, DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import type { Account } from '../../src/zcopy/ledger.ts';
import { HEIGHT, WIDTH } from '../display/bodies.ts';
import type { RecordingOutput } from '../display/recording-output.ts';
import { Rig, type RigHost } from '../display/rig.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';
import { HONEST_SIZE, HonestGuest } from './honest-guest.ts';
import { type Before, intercepted } from './intercepted.ts';
import { defectsOf, LoggedRuntime } from './logged-runtime.ts';

const MACHINE_FRAMES = 16_384;
const REFRESH_HZ = 60;
/** Set aside for each guest whose buffers are allocated here. */
const POOL_PAGES = 64;
/** Steps after which a world in which nothing happens any more is declared broken. */
const STEPS_MAX = 400_000;
/** Flips that the honest guest makes before the attack, and after it. */
const FLIPS_AROUND = 5;
export interface WorldOptions {
  readonly seed?: number;
  readonly budget?: Partial<Budget>;
  readonly machineFrames?: number;
  /** Where the hostile guest's connectors show, for tests that hold its pictures. */
  readonly output?: RecordingOutput;
  readonly before?: Before;
}

export interface AttackOptions extends WorldOptions {
  /** Connectors of the hostile guest's display; one when left out. */
  readonly connectors?: number;
  /** What else its configuration has. */
  readonly devices?: GuestDevices;
  /** False when the test starts the frontend itself. */
  readonly connect?: boolean;
}

/** The hostile guest's connectors show on a recording, all others on ordinary screens. */
class SplitOutput implements ScreenOutput {
  readonly #screens: BrowserOutput;
  readonly #recording: RecordingOutput;

  constructor(options: ScreenOutputOptions, recording: RecordingOutput) {
    this.#screens = new BrowserOutput(options);
    this.#recording = recording;
  }

  connect(info: ConnectorInfo): Promise<OutputConnector> {
    const hostile = info.uniqueId.startsWith('hostile');
    return hostile ? this.#recording.connect(info) : this.#screens.connect(info);
  }

  screen(domid: DomId, connector: number): Screen | undefined {
    return this.#screens.screen(domid, connector);
  }

  status(): OutputStatus {
    return this.#screens.status();
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

export class World implements RawWorld, RigHost {
  readonly runtime: LoggedRuntime;
  readonly host: XenHost;
  readonly daemon: Daemon;
  readonly honest: HonestGuest;
  readonly budget: Budget;

  private constructor(parts: Pick<World, 'runtime' | 'host' | 'daemon' | 'honest' | 'budget'>) {
    this.runtime = parts.runtime;
    this.host = parts.host;
    this.daemon = parts.daemon;
    this.honest = parts.honest;
    this.budget = parts.budget;
  }

  static async open(options: WorldOptions = {}): Promise<World> {
    const { seed = 1, output, before, machineFrames = MACHINE_FRAMES } = options;
    const budget = { ...DEFAULT_BUDGET, poolPages: POOL_PAGES, ...options.budget };
    const runtime = new LoggedRuntime(seed);
    const host = await run(runtime, XenHost.start({ runtime, machineFrames }));
    const daemon = await run(
      runtime,
      Daemon.start({
        runtime,
        domain: before ? intercepted(host.dom0, before) : host.dom0,
        budget,
        refreshHz: REFRESH_HZ,
        hostPaths: {},
        ...(output && { output: (its: ScreenOutputOptions) => new SplitOutput(its, output) }),
      }),
    );
    const displays = [{ uniqueId: 'honest', ...HONEST_SIZE }];
    const config = { name: 'honest', displays, keyboard: true } as const;
    const guest = await run(runtime, host.createGuest(config));
    const honest = new HonestGuest({ runtime, daemon, guest, domain: host.enter(guest) });
    const world = new World({ runtime, host, daemon, honest, budget });
    await world.run(honest.open());
    await world.until(() => honest.connected, 'the honest guest is connected');
    await world.run(honest.begin());
    await world.flipsGoOn(FLIPS_AROUND);
    return world;
  }

  /** What the promise gives, running the world until it does. */
  run<T>(promise: Promise<T>): Promise<T> {
    return run(this.runtime, promise);
  }

  until(condition: () => boolean, what: string): Promise<void> {
    return this.runtime.runUntil(condition, { what, maxSteps: STEPS_MAX });
  }

  /** Lets that much virtual time go by, with everything that happens in it. */
  pause(delayMs: number): Promise<void> {
    return this.run(sleep(this.runtime, delayMs));
  }

  /** What the daemon says of a guest. */
  statusOf(domid: DomId): GuestStatus | undefined {
    return this.daemon.status().guests.find((guest) => guest.domid === domid);
  }

  account(domid: DomId): Pick<Account, 'held' | 'refused' | 'budget'> {
    const status = this.statusOf(domid);
    assert(status, `domain ${domid} has no row`);
    return { ...status, held: status.held as Account['held'], budget: this.budget };
  }

  /** Waits until the honest guest has made so many more flips. @throws what it has noticed */
  async flipsGoOn(count: number): Promise<void> {
    const { honest } = this;
    const wanted = honest.flips + count;
    await this.until(() => honest.flips >= wanted, `${count} more flips`).catch((error) => {
      honest.check();
      throw error;
    });
    honest.check();
  }

  /** A guest besides the honest one; its code runs in this thread. */
  guest(name: string, devices: GuestDevices): Promise<Guest> {
    return this.run(this.host.createGuest({ name, ...devices }));
  }

  /** Everything that has to be so whatever a guest did, while it is there and after it has gone. */
  async verdict(hostile: readonly Guest[]): Promise<void> {
    await this.#honestGoesOn();
    await this.ends(hostile);
    await this.#honestGoesOn();
  }

  /** Takes hostile guests away, of whom nothing may be left then. */
  async ends(hostile: readonly Guest[]): Promise<void> {
    for (const guest of hostile) await this.run(guest.destroy());
    await this.until(
      () => hostile.every(({ domid }) => this.statusOf(domid) === undefined),
      'the hostile guest has no row any more',
    );
    const left = leakReport(this.host.hypervisor.books()).filter((line) =>
      hostile.some(({ domid }) => line.includes(`domain ${domid} `)),
    );
    assert.deepEqual(left, [], 'what is left of the hostile guest');
  }

  async #honestGoesOn(): Promise<void> {
    await this.flipsGoOn(FLIPS_AROUND);
    await this.until(() => this.honest.hasEveryKey, 'every key has arrived');
    const status = this.statusOf(this.honest.guest.domid);
    assert.equal(status?.state, 'connected');
    assert.deepEqual(status.refused, {});
    assert.deepEqual(defectsOf(this.runtime), []);
  }

  async close(): Promise<void> {
    await this.run(this.honest.close());
    await this.run(this.honest.guest.destroy());
    await this.until(() => this.daemon.status().guests.length === 0, 'every guest is forgotten');
    await this.run(Promise.resolve(this.daemon[Symbol.asyncDispose]()));
    assert.deepEqual(leakReport(this.host.hypervisor.books()), []);
    await this.run(Promise.resolve(this.host[Symbol.asyncDispose]()));
    assert.deepEqual(defectsOf(this.runtime), []);
  }
}

/** The hostile guest, with its display's frontend, and what it asks for. */
export class Attack extends Rig<World> {
  readonly guest: Guest;
  /** In every pixel that it draws. */
  static readonly PIXEL = 0xdead_beef;

  constructor(world: World, guest: Guest, connectors: number) {
    const domain = world.host.enter(guest);
    super(world, new RawFrontend(world, domain, { connectors }));
    this.guest = guest;
  }

  get world(): World {
    return this.host;
  }

  get domain() {
    return this.raw.guest;
  }

  /** Pages full of its own pixel, but for what the test draws. */
  override pages(count: number, draw: (words: Uint32Array) => void = () => {}): Promise<number> {
    return super.pages(count, (words) => draw(words.fill(Attack.PIXEL)));
  }

  /** Where its display is in xenstore. */
  get path(): string {
    return `/local/domain/${this.domid}/device/vdispl/0`;
  }

  /** Writes a node of its display; null removes it. */
  async node(key: string, value: string | null): Promise<void> {
    const { store } = this.domain;
    const path = `${this.path}/${key}`;
    await this.world.run(value === null ? store.remove(path) : store.write(path, value));
  }

  /** How often the daemon has refused it something for that reason, also before it has a row. */
  refusedFor(reason: string): number {
    return this.world.statusOf(this.domid)?.refused[reason] ?? 0;
  }

  /** What the daemon has refused it, by reason. */
  get refused(): Readonly<Record<string, number>> {
    return this.account.refused;
  }
}

/** A hostile guest, connected unless the test does that. */
export async function attackOn(
  world: World,
  { connectors = 1, devices = {}, connect = true }: AttackOptions,
): Promise<Attack> {
  const displays = Array.from({ length: connectors }, (_, index) => ({
    uniqueId: `hostile-${index}`,
    width: WIDTH,
    height: HEIGHT,
  }));
  const guest = await world.guest('hostile', { displays, ...devices });
  const attack = new Attack(world, guest, connectors);
  if (connect) await attack.raw.open();
  return attack;
}

/** Runs a case of the catalogue, and says whether it was survived. */
export async function survives(
  script: (attack: Attack) => Promise<void>,
  options: AttackOptions = {},
): Promise<void> {
  const world = await World.open(options);
  const attack = await attackOn(world, options);
  await script(attack);
  await world.verdict([attack.guest]);
  await world.close();
}

function run<T>(runtime: VirtualRuntime, promise: Promise<T>): Promise<T> {
  return runUntilSettled(runtime, promise, STEPS_MAX);
}
