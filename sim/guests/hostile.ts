// The life of a guest that breaks rules: it shakes hands as every guest does, so that it gets somewhere, and
// then does one act of the list after the other (acts.ts), for as long as its domain runs.

import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { Random } from '../../src/runtime/random.ts';
import { silentLogger, until } from '../../src/runtime/runtime.ts';
import type { Scope } from '../../src/runtime/scope.ts';
import type { EventChannel, SharedPages } from '../../src/xen/domain.ts';
import { FrontendDevice, type FrontendDriver } from '../../src/xen/xenbus/frontend-device.ts';
import { between, happens, streamOf } from '../chance.ts';
import { Program } from '../program.ts';
import type { Surroundings } from '../surroundings.ts';
import { type Acts, actOn } from './act-loop.ts';
import { ACTS, type Hands } from './acts.ts';
import { LifeWithoutClaim } from './life.ts';
import { RawFrontend, type RawWorld } from './raw-frontend.ts';
import { RequestGenerator } from './requests.ts';
import { SHARE_ACTS, type ShareHands } from './share-acts.ts';

/** Of one that has shares in hand as well. */
const SHARING_ACTS: Acts<Hands & ShareHands> = { ...ACTS, ...SHARE_ACTS };

export interface HostileGuestParts {
  readonly guest: Guest;
  /** Of its display, of which it may use fewer; and its keyboards. */
  readonly connectors: number;
  readonly keyboards: number;
  readonly shares: boolean;
}

export class HostileGuest extends LifeWithoutClaim {
  readonly #world: Surroundings;
  readonly #random: Random;
  readonly #program: Program;
  readonly #domain: GuestDomain;
  readonly #raw: RawFrontend;
  readonly #keyboards: readonly RawKeyboard[];
  readonly #shares: boolean;

  constructor(world: Surroundings, { guest, connectors, keyboards, shares }: HostileGuestParts) {
    super(guest);
    this.#shares = shares;
    this.#world = world;
    const { runtime, seed } = world;
    this.#random = streamOf(seed, `hostile ${guest.domid}`);
    const random = streamOf(seed, `program ${guest.domid}`);
    // What it says of its own troubles is no news.
    this.#program = new Program({ runtime, random, log: silentLogger() });
    this.#domain = world.host.enter(guest, this.#program);
    const used = between(this.#random, 1, connectors);
    this.#raw = new RawFrontend(this.#around(), this.#domain, { connectors: used });
    this.#keyboards = Array.from({ length: keyboards }, () => new RawKeyboard(this.#random));
  }

  start(): void {
    if (this.#shares) this.#world.sharers.add(this.guest.domid);
    const [runtime, domain] = [this.#program, this.#domain];
    // What becomes of its frontends is the guest's own trouble.
    for (const [devid, driver] of this.#keyboards.entries()) {
      FrontendDevice.open({ runtime, domain, driver, devid }).catch(() => {});
    }
    this.#raw.start().catch(() => {});
    this.#run().catch(() => {});
  }

  end(): void {
    this.#world.sharers.delete(this.guest.domid);
    this.#program.kill();
  }

  #run(): Promise<void> {
    return actOn({
      world: this.#world,
      domid: this.guest.domid,
      program: this.#program,
      random: this.#random,
      acts: this.#shares ? SHARING_ACTS : ACTS,
      hands: this.#hands(),
    });
  }

  #hands(): Hands & ShareHands {
    const keyboards = this.#keyboards;
    return {
      random: this.#random,
      domain: this.#domain,
      calls: this.#world.port(this.guest.domid),
      raw: this.#raw,
      requests: new RequestGenerator(this.#random),
      get keyboard() {
        return keyboards.find(({ open }) => open !== undefined)?.open;
      },
      laidOut: [],
      directories: [],
      mapped: [],
      windows: [],
      peers: () => [...this.#world.sharers].filter((domid) => domid !== this.guest.domid),
      exporters: [],
      importers: [],
    };
  }

  #around(): RawWorld {
    return {
      runtime: this.#program,
      run: (promise) => promise,
      until: (condition, what) => until(this.#program, condition, { what }),
    };
  }
}

/** A keyboard's frontend that takes part in the handshake and leaves its page to others. */
class RawKeyboard implements FrontendDriver {
  readonly type = 'vkbd';
  open: { page: SharedPages; channel: EventChannel } | undefined;
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  async publish({ domain, backendDomid: domid }: FrontendDevice, scope: Scope) {
    const page = scope.own(await domain.grants.share({ domid, pages: 1, writable: true }));
    const request = { remote: domid, handler: () => {} };
    const channel = scope.own(await domain.events.allocUnbound(request));
    this.open = { page, channel };
    const wish = () => (happens(this.#random, 2) ? '1' : '0');
    return {
      'page-gref': `${page.refs[0]}`,
      'event-channel': `${channel.port}`,
      'request-abs-pointer': wish(),
      'request-raw-pointer': wish(),
      'request-multi-touch': wish(),
    };
  }

  onConnected(): void {}

  onFailed(): void {
    this.open = undefined;
  }
}
