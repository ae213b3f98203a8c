// A Xen host in this process with the display backend, under virtual time, and guests with displays: for
// tests of backend and frontend together. `close` asserts that nothing is left of anything.

import assert from 'node:assert/strict';
import { DisplayBackend } from '../../src/display/backend.ts';
import { DisplayFrontend } from '../../src/display/frontend.ts';
import type { GuestDisplay } from '../../src/display/guest-display.ts';
import type { DisplayOutput } from '../../src/display/output.ts';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { NullOutput } from '../../src/outputs/null.ts';
import { type Runtime, sleep } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import type { Domain } from '../../src/xen/domain.ts';
import type { DomId } from '../../src/xen/ids.ts';
import { BackendBus } from '../../src/xen/xenbus/backend-bus.ts';
import { Guests } from '../../src/xen/xenbus/guests.ts';
import { type Budget, DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { openGuest } from '../../src/zcopy/guest.ts';
import { type Account, Ledger } from '../../src/zcopy/ledger.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';

const MACHINE_FRAMES = 16_384;
/** Set aside for each guest whose buffers are allocated here. */
const POOL_PAGES = 64;
/** Steps after which a world in which nothing happens any more is declared broken. */
const STEPS_MAX = 300_000;

export interface HostOptions {
  readonly seed?: number;
  readonly output?: (runtime: Runtime) => DisplayOutput;
  /** How long the backend's mappings of buffers, and its bindings of ports, take. */
  readonly delayMs?: number;
  /** The displays' buffers are allocated by the backend. */
  readonly beAlloc?: boolean;
  readonly budget?: Partial<Budget>;
}

/** What is connected in a test host; made by `DisplayHost.open`. */
interface HostParts {
  readonly runtime: VirtualRuntime;
  readonly host: XenHost;
  readonly ledger: Ledger;
  readonly backend: DisplayBackend;
  readonly bus: BackendBus;
  readonly beAlloc: boolean;
}

export class DisplayHost {
  readonly runtime: VirtualRuntime;
  readonly host: XenHost;
  readonly backend: DisplayBackend;
  readonly #ledger: Ledger;
  readonly #bus: BackendBus;
  readonly #beAlloc: boolean;

  private constructor({ runtime, host, ledger, backend, bus, beAlloc }: HostParts) {
    this.runtime = runtime;
    this.host = host;
    this.backend = backend;
    this.#ledger = ledger;
    this.#bus = bus;
    this.#beAlloc = beAlloc;
  }

  static async open(options: HostOptions = {}): Promise<DisplayHost> {
    const { seed = 1, output, delayMs = 0, beAlloc = false } = options;
    const budget = { ...DEFAULT_BUDGET, poolPages: POOL_PAGES, ...options.budget };
    const runtime = new VirtualRuntime(seed);
    const host = await run(runtime, XenHost.start({ runtime, machineFrames: MACHINE_FRAMES }));
    const backend = new DisplayBackend({
      output: output?.(runtime) ?? new NullOutput({ runtime }),
    });
    const ledger = new Ledger();
    const domain = slowDomain(host.dom0, runtime, delayMs);
    const guests = new Guests(
      (domid) => openGuest({ runtime, domain, ledger, budget, domid, name: 'guest' }).context,
    );
    const bus = await run(runtime, BackendBus.open({ runtime, domain, driver: backend, guests }));
    return new DisplayHost({ runtime, host, ledger, backend, bus, beAlloc });
  }

  /** A guest with a display of these connectors, `WIDTHxHEIGHT` each. */
  async guest(...resolutions: string[]): Promise<TestGuest> {
    const displays = resolutions.map((resolution, index) => {
      const [width, height] = resolution.split('x').map(Number);
      return { uniqueId: `screen-${index}`, width: width!, height: height! };
    });
    const guest = await this.run(
      this.host.createGuest({ name: 'guest', displays, beAlloc: this.#beAlloc }),
    );
    return { guest, domain: this.host.enter(guest) };
  }

  /** A guest whose frontend is ours, connected. */
  async display(...resolutions: string[]): Promise<TestDisplay> {
    const display = new TestDisplay(this, await this.guest(...resolutions));
    await display.open();
    return display;
  }

  /** The guest's row, while it has one. */
  account(domid: DomId): Account {
    const account = [...this.#ledger.accounts].find((row) => row.domid === domid);
    assert(account, `domain ${domid} has no row`);
    return account;
  }

  /** Grants that dom0 maps now, on the hypervisor's own books. */
  get mapped(): number {
    return this.host.hypervisor.books().domains[0]!.maptrackUsed;
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

  /** Takes the guests away and closes the backend; all that they made the host hold must be gone then. */
  async close(): Promise<void> {
    for (const guest of this.host.guests) await this.run(guest.destroy());
    await this.until(() => [...this.#ledger.accounts].length === 0, 'every guest is forgotten');
    assert.equal(this.mapped, 0);
    await this.run(this.#bus.close());
    const clean = () => leakReport(this.host.hypervisor.books()).length === 0;
    await this.until(clean, 'everybody got back what they had lent');
    await this.run(this.host[Symbol.asyncDispose]());
  }
}

function run<T>(runtime: VirtualRuntime, promise: Promise<T>): Promise<T> {
  return runUntilSettled(runtime, promise, STEPS_MAX);
}

/** `domain`, with hypercalls that take their time: events may come before who bound the port knows it. */
function slowDomain(domain: Domain, runtime: Runtime, delayMs: number): Domain {
  if (delayMs === 0) return domain;
  return {
    domid: domain.domid,
    provider: domain.provider,
    grants: domain.grants,
    store: domain.store,
    memory: domain.memory,
    foreign: {
      export: (request) => domain.foreign.export(request),
      map: async (request) => {
        await sleep(runtime, delayMs);
        return domain.foreign.map(request);
      },
    },
    events: {
      allocUnbound: (request) => domain.events.allocUnbound(request),
      bindInterdomain: async (request) => {
        const channel = await domain.events.bindInterdomain(request);
        await sleep(runtime, delayMs);
        return channel;
      },
    },
    [Symbol.asyncDispose]: () => domain[Symbol.asyncDispose](),
  };
}

export interface TestGuest {
  readonly guest: Guest;
  readonly domain: GuestDomain;
}

/** A guest with our own frontend. */
export class TestDisplay {
  readonly guest: Guest;
  readonly domain: GuestDomain;
  readonly #host: DisplayHost;
  #frontend: DisplayFrontend | undefined;
  #display: GuestDisplay | undefined;
  failure: Error | undefined;

  constructor(host: DisplayHost, { guest, domain }: TestGuest) {
    this.#host = host;
    this.guest = guest;
    this.domain = domain;
  }

  async open(): Promise<void> {
    const opened = DisplayFrontend.open({
      runtime: this.#host.runtime,
      domain: this.domain,
      onConnected: (display) => {
        this.#display = display;
      },
      onDisconnected: () => {
        this.#display = undefined;
      },
      onFailed: (reason) => {
        this.failure = reason;
      },
    });
    this.#frontend = await this.#host.run(opened);
    await this.#host.until(() => this.#display !== undefined, 'the display connects');
  }

  get display(): GuestDisplay {
    assert(this.#display, 'the display is not connected');
    return this.#display;
  }

  async close(): Promise<void> {
    await this.#host.run(this.#frontend!.close());
  }
}
