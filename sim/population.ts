// The guests of a simulated host: each place at the machine has one after the other, each booted as soon as its
// predecessor is gone, until the world ends.

import type { Guest } from '../src/hypervisor/guest.ts';
import { type DeviceSpec, deviceSpecs } from '../src/hypervisor/toolstack.ts';
import { messageOf, SysError } from '../src/runtime/errors.ts';
import type { Random } from '../src/runtime/random.ts';
import { sleep } from '../src/runtime/runtime.ts';
import { GrantMapError } from '../src/xen/domain.ts';
import type { DomId } from '../src/xen/ids.ts';
import { between, streamOf } from './chance.ts';
import { DrivenGuest } from './guests/driven.ts';
import { DriverDomain } from './guests/driver.ts';
import { HonestGuest } from './guests/honest.ts';
import { HostileGuest } from './guests/hostile.ts';
import type { GuestLife } from './guests/life.ts';
import type { GuestPlan } from './plan.ts';
import type { Surroundings } from './surroundings.ts';

/** Time between the end of a guest and the next one in its place, in milliseconds. */
const EMPTY_MS = [1, 300] as const;

export class Population {
  readonly #world: Surroundings;
  readonly #random: Random;
  readonly #lives = new Map<DomId, GuestLife>();
  readonly #devices = new Map<DomId, readonly DeviceSpec[]>();
  #born = 0;
  #closing = false;

  constructor(world: Surroundings) {
    this.#world = world;
    this.#random = streamOf(world.seed, 'population');
  }

  /** The guests that live now. */
  get lives(): readonly GuestLife[] {
    return [...this.#lives.values()];
  }

  /** The guest of that number, while it lives. */
  life(domid: DomId): GuestLife | undefined {
    return this.#lives.get(domid);
  }

  /** What the toolstack gave to the guest of that number, while it lives. */
  devices(domid: DomId): readonly DeviceSpec[] {
    return this.#devices.get(domid) ?? [];
  }

  /** Guests that there have been. */
  get born(): number {
    return this.#born;
  }

  /** Fills a place at the machine for good. */
  async fill(plan: GuestPlan): Promise<void> {
    while (!this.#closing) {
      const guest = await this.#boot(plan);
      if (guest) await this.#live(plan, guest);
      if (guest) this.#devices.delete(guest.domid);
      await sleep(this.#world.runtime, between(this.#random, ...EMPTY_MS));
    }
  }

  /** No guest follows any more. */
  close(): void {
    this.#closing = true;
  }

  /** A new guest, or none when the machine has no room for one now. */
  async #boot({ name, connectors, beAlloc, keyboards }: GuestPlan): Promise<Guest | undefined> {
    const { host, findings } = this.#world;
    const displays = connectors.map((size, index) => ({ uniqueId: `${name}-${index}`, ...size }));
    const [keyboard, ...furtherKeyboards] = keyboards;
    const config = { name, displays, beAlloc, ...(keyboard && { keyboard, furtherKeyboards }) };
    try {
      const guest = await host.createGuest(config);
      this.#born += 1;
      this.#devices.set(guest.domid, deviceSpecs(guest.domid, config));
      return guest;
    } catch (error) {
      // One that is destroyed while it is being made cannot be mapped any more.
      const expected = error instanceof SysError || error instanceof GrantMapError;
      findings.hold(expected, 'defect', () => `creating a guest: ${messageOf(error)}`);
      return undefined;
    }
  }

  async #live(plan: GuestPlan, guest: Guest): Promise<void> {
    if (!this.#world.runs(guest.domid)) return void (await guest.gone);
    const life = this.#lifeOf(plan, guest);
    this.#lives.set(guest.domid, life);
    life.start();
    await guest.gone;
    life.end();
    this.#lives.delete(guest.domid);
  }

  #lifeOf({ role, connectors, keyboards, shares }: GuestPlan, guest: Guest): GuestLife {
    switch (role) {
      case 'honest':
        return new HonestGuest(this.#world, { guest, keyboards: keyboards.length, shares });
      case 'hostile':
        return new HostileGuest(this.#world, {
          guest,
          connectors: connectors.length,
          keyboards: keyboards.length,
          shares,
        });
      case 'driver':
        return new DriverDomain(this.#world, guest);
      case 'driven':
        return new DrivenGuest(this.#world, guest);
    }
  }
}
