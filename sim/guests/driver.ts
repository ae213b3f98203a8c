// The life of a driver domain that breaks rules: the toolstack has made it the backend of others' devices (driven.ts),
// and it does one act of the list after the other with them (backend-acts.ts).

import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { silentLogger, sleep } from '../../src/runtime/runtime.ts';
import { streamOf } from '../chance.ts';
import { Program } from '../program.ts';
import type { Surroundings } from '../surroundings.ts';
import { actOn } from './act-loop.ts';
import { BACKEND_ACTS, type BackendHands } from './backend-acts.ts';
import { LifeWithoutClaim } from './life.ts';

export class DriverDomain extends LifeWithoutClaim {
  readonly #world: Surroundings;
  readonly #program: Program;
  readonly #domain: GuestDomain;

  constructor(world: Surroundings, guest: Guest) {
    super(guest);
    this.#world = world;
    const { runtime, seed } = world;
    const random = streamOf(seed, `program ${guest.domid}`);
    // What it says of its own troubles is no news.
    this.#program = new Program({ runtime, random, log: silentLogger() });
    this.#domain = world.host.enter(guest, this.#program);
  }

  start(): void {
    const { domid } = this.guest;
    this.#world.drivers.add(domid);
    const hands = this.#hands();
    const { random } = hands;
    const [world, program, acts] = [this.#world, this.#program, BACKEND_ACTS];
    actOn({ world, domid, program, random, acts, hands }).catch(() => {});
  }

  end(): void {
    this.#world.drivers.delete(this.guest.domid);
    this.#program.kill();
  }

  #hands(): BackendHands {
    return {
      random: streamOf(this.#world.seed, `driver ${this.guest.domid}`),
      domain: this.#domain,
      world: { run: (promise) => promise, pause: (delayMs) => sleep(this.#program, delayMs) },
      backends: new Map(),
      lent: [],
    };
  }
}
