// A Xen host in this process under a virtual runtime, with what tests of backends need: domain 0 with a
// backend bus, guests that come and go, the toolstack's nodes, and the ledger.

import assert from 'node:assert/strict';
import { GuestDomain } from '../../../src/hypervisor/guest-domain.ts';
import { Hypervisor } from '../../../src/hypervisor/hypervisor.ts';
import { Xenstored } from '../../../src/hypervisor/xenstored/server.ts';
import { VirtualRuntime } from '../../../src/runtime/virtual.ts';
import type { Domain } from '../../../src/xen/domain.ts';
import { DOM0, type DomId } from '../../../src/xen/ids.ts';
import { bytePipe } from '../../../src/xen/pipe.ts';
import { Guests } from '../../../src/xen/xenbus/guests.ts';
import { devicePaths, type PvDevice } from '../../../src/xen/xenbus/toolstack.ts';
import { XenstoreClient } from '../../../src/xen/xenstore-client.ts';
import { type Budget, DEFAULT_BUDGET } from '../../../src/zcopy/budget.ts';
import { openGuest } from '../../../src/zcopy/guest.ts';
import { Ledger } from '../../../src/zcopy/ledger.ts';

const MACHINE_FRAMES = 16_384;
/** Steps after which a world that does not come to rest is declared broken. */
const STEPS_MAX = 1_000_000;

export class World {
  readonly runtime: VirtualRuntime;
  readonly hypervisor: Hypervisor;
  readonly xenstored: Xenstored;
  readonly ledger = new Ledger();
  readonly dom0: GuestDomain;
  /** Refusals counted through guests' contexts, by reason, of all guests together. */
  readonly refused = new Map<string, number>();

  readonly #budget: Budget;

  constructor(seed: number, limits: Partial<Budget> = {}) {
    this.#budget = { ...DEFAULT_BUDGET, ...limits };
    this.runtime = new VirtualRuntime(seed);
    const { runtime } = this;
    this.hypervisor = new Hypervisor({ runtime, machineFrames: MACHINE_FRAMES });
    this.xenstored = new Xenstored({ runtime });
    this.dom0 = this.enter(DOM0);
  }

  /** A view of an existing domain with a xenstore connection of its own. */
  enter(domid: DomId): GuestDomain {
    const { runtime } = this;
    return new GuestDomain({
      port: this.hypervisor.enter(domid),
      runtime,
      connectStore: () => this.connectStore(domid),
    });
  }

  /** One more connection of a domain to xenstored. */
  connectStore(domid: DomId): XenstoreClient {
    const [channel, serverEnd] = bytePipe(this.runtime);
    this.xenstored.accept({ channel: serverEnd, domid });
    return new XenstoreClient({ runtime: this.runtime, channel });
  }

  /** Domain 0 as a process of its own sees it: with a xenstore connection that can end on its own. */
  process(): { readonly domain: Domain; readonly store: XenstoreClient } {
    const { grants, foreign, memory, events } = this.dom0;
    const store = this.connectStore(DOM0);
    const close = () => store[Symbol.asyncDispose]();
    const provider = 'hypervisor';
    const domain = { domid: DOM0, provider, grants, foreign, memory, events, store } as const;
    return { domain: { ...domain, [Symbol.asyncDispose]: close }, store };
  }

  /** A new domain with its home in xenstore, as the toolstack makes it. */
  async guest(): Promise<GuestDomain> {
    const { domid } = this.hypervisor.createDomain({ name: 'guest' });
    this.xenstored.introduceDomain(domid);
    const home = `/local/domain/${domid}`;
    await this.dom0.store.write(home, '');
    await this.dom0.store.setPermissions(home, [
      { domid: DOM0, read: false, write: false },
      { domid, read: true, write: false },
    ]);
    return this.enter(domid);
  }

  /** Ends a domain as the toolstack does after `xl destroy`: nodes and all. */
  async destroy(guest: GuestDomain): Promise<void> {
    this.crash(guest);
    await this.dom0.store.remove(`/local/domain/${guest.domid}`);
  }

  /** Ends a domain before any toolstack has done anything about it. */
  crash(guest: GuestDomain): void {
    this.hypervisor.destroy(guest.domid);
    this.xenstored.releaseDomain(guest.domid);
  }

  /** Guests as a daemon keeps them: one row of the ledger each, which must be empty at the end. */
  guests(domain: Domain = this.dom0): Guests {
    return new Guests((domid) => {
      const { runtime, ledger } = this;
      const budget = this.#budget;
      const { context } = openGuest({ runtime, domain, ledger, budget, domid, name: 'guest' });
      return {
        ...context,
        countRefusal: (reason) => {
          context.countRefusal(reason);
          this.refused.set(reason, (this.refused.get(reason) ?? 0) + 1);
        },
      };
    });
  }

  /** What the promise gives, running the world until it does. */
  async run<T>(promise: PromiseLike<T>): Promise<T> {
    let settled = false;
    const watched = Promise.resolve(promise).finally(() => {
      settled = true;
    });
    watched.catch(() => {});
    await this.until(() => settled, 'the promise settles');
    return watched;
  }

  until(condition: () => boolean, what: string): Promise<void> {
    return this.runtime.runUntil(condition, { what, maxSteps: STEPS_MAX });
  }

  /** Runs until nothing is left to do, timers included. */
  async idle(): Promise<void> {
    for (let steps = 0; await this.runtime.step(); steps++) {
      assert(steps < STEPS_MAX, 'the world does not come to rest');
    }
  }

  /** Everything that guests make dom0 hold, on the hypervisor's own books. */
  get held(): { mappings: number; ports: number; rows: number } {
    const { domains } = this.hypervisor.books();
    const books = domains.find(({ domid }) => domid === DOM0);
    assert(books);
    return {
      mappings: books.maptrackUsed,
      ports: books.ports,
      rows: [...this.ledger.accounts].length,
    };
  }

  async backendState(device: PvDevice): Promise<string | undefined> {
    return this.run(this.dom0.store.read(`${devicePaths(device).backend}/state`));
  }

  async frontendState(device: PvDevice): Promise<string | undefined> {
    return this.run(this.dom0.store.read(`${devicePaths(device).frontend}/state`));
  }
}
