// Fate: what befalls whole guests and the whole daemon, at any step: crashes, orderly ends, reboots from outside,
// devices that are taken away, viewers that come and go.

import type { DeviceSpec } from '../src/hypervisor/toolstack.ts';
import { messageOf } from '../src/runtime/errors.ts';
import type { Random } from '../src/runtime/random.ts';
import { sleep } from '../src/runtime/runtime.ts';
import type { Backend } from './backend.ts';
import { between, happens, oneOf, streamOf, weighted } from './chance.ts';
import type { FaultKind } from './faults.ts';
import type { GuestLife } from './guests/life.ts';
import { replug } from './hotplug.ts';
import type { Population } from './population.ts';
import type { Surroundings } from './surroundings.ts';
import { dither, litter, slipIn } from './toolstack-slips.ts';

/** Time that a daemon which was stopped is gone, in milliseconds. */
const RESTART_MS = [1, 1000] as const;
/** Time that a device is away, in milliseconds. */
const AWAY_MS = [0, 500] as const;
/** One program that shares in so many ends in good order. */
const LEAVE_ONE_IN = 3;
/** Time that it is there as it should not be, in milliseconds. */
const SLIP_MS = [10, 3000] as const;

const BLOWS = {
  'guest-crash': 3,
  'guest-destroy': 3,
  'guest-shutdown': 2,
  'sharer-kill': 4,
  'xenstore-lost': 2,
  'device-detach': 3,
  'toolstack-slip': 3,
  'backend-kill': 2,
  'backend-restart': 1,
  'viewer-gone': 6,
} as const satisfies Partial<Record<FaultKind, number>>;

export interface FateParts {
  readonly world: Surroundings;
  readonly backend: Backend;
  readonly population: Population;
  /** Mean time between two blows, in milliseconds. */
  readonly everyMs: number;
}

export class Fate {
  readonly #parts: FateParts;
  readonly #random: Random;
  /** What the toolstack is in the middle of. */
  #underWay = 0;

  constructor(parts: FateParts) {
    this.#parts = parts;
    this.#random = streamOf(parts.world.seed, 'fate');
  }

  /** Whether the toolstack is in the middle of something. */
  get toolstackRests(): boolean {
    return this.#underWay === 0;
  }

  /** Strikes until the world is healed. */
  async run(): Promise<void> {
    const { world, everyMs } = this.#parts;
    for (let blow = 0; !world.faults.healed; blow++) {
      await sleep(world.runtime, between(this.#random, 0, 2 * everyMs));
      const kind = weighted(this.#random, BLOWS);
      const target = this.#random.u32();
      if (!world.faults.has(kind) || world.omits(`fate-${blow}`)) continue;
      world.faults.count(kind);
      this.#strike(kind, target);
    }
  }

  #strike(kind: keyof typeof BLOWS, target: number): void {
    const { backend, population } = this.#parts;
    const { lives } = population;
    const life = lives[target % Math.max(1, lives.length)];
    if (kind === 'backend-kill') backend.kill();
    else if (kind === 'backend-restart') this.#inBackground(this.#restart());
    else if (kind === 'viewer-gone') backend.changeViewers();
    else if (kind === 'device-detach') this.#byToolstack(this.#detach(life));
    else if (kind === 'toolstack-slip') this.#byToolstack(this.#slip(life));
    else if (kind === 'xenstore-lost') this.#loseStore(life);
    else if (kind === 'sharer-kill') this.#endSharer(life);
    else if (life) this.#inBackground(this.#end(kind, life));
  }

  async #detach(life: GuestLife | undefined): Promise<void> {
    const spec = this.#deviceOf(life);
    const awayMs = between(this.#random, ...AWAY_MS);
    if (spec) await replug(this.#parts.world, spec, { awayMs });
  }

  /** The toolstack makes a mistake, with a device of a guest's or beside all of them. */
  async #slip(life: GuestLife | undefined): Promise<void> {
    const { world } = this.#parts;
    const random = this.#random;
    const spec = this.#deviceOf(life);
    if (!spec || happens(random, 4)) return litter(world, random);
    if (happens(random, 6)) return dither(world, spec);
    const awayMs = between(random, ...AWAY_MS);
    const slip = { spec: slipIn(spec, random), forMs: between(random, ...SLIP_MS) };
    await replug(world, spec, { awayMs, slip });
  }

  /** One of those that the toolstack gave to a guest. */
  #deviceOf(life: GuestLife | undefined): DeviceSpec | undefined {
    const devices = life ? this.#parts.population.devices(life.guest.domid) : [];
    return devices.length > 0 ? oneOf(this.#random, devices) : undefined;
  }

  #endSharer(life: GuestLife | undefined): void {
    const { sharer } = life ?? {};
    if (sharer && happens(this.#random, LEAVE_ONE_IN)) this.#inBackground(sharer.leave());
    else sharer?.kill();
  }

  /** A program that shares loses it, or the daemon. */
  #loseStore(life: GuestLife | undefined): void {
    if (life?.sharer && happens(this.#random, 2)) life.sharer.loseStore();
    else this.#parts.backend.loseStore();
  }

  async #end(kind: FaultKind, life: GuestLife): Promise<void> {
    if (kind === 'guest-shutdown') await life.shutDown();
    else if (kind === 'guest-destroy') await life.guest.destroy();
    else if (this.#parts.world.runs(life.guest.domid)) life.guest.crash();
  }

  async #restart(): Promise<void> {
    const { backend, world } = this.#parts;
    await backend.stop();
    await sleep(world.runtime, between(this.#random, ...RESTART_MS));
    if (!backend.running) backend.start();
  }

  #byToolstack(work: Promise<void>): void {
    this.#underWay += 1;
    const over = () => {
      this.#underWay -= 1;
    };
    this.#inBackground(work.finally(over));
  }

  #inBackground(work: Promise<void>): void {
    work.catch((error: unknown) => {
      this.#parts.world.findings.hold(false, 'defect', () => `fate failed: ${messageOf(error)}`);
    });
  }
}
