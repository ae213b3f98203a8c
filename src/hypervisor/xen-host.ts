// A whole Xen host in this process: the hypervisor, domain 0 with xenstored, and a toolstack that makes
// guests and takes them away. Domain 0 and the guests of tests run in this thread, others in workers or in
// processes of their own.
//
// Invariant: a guest that stopped, by whatever cause, is destroyed by the toolstack; what is left of it is
// what other domains still map, and the books say who does.

import type { Runtime } from '../runtime/runtime.ts';
import { DOM0, type DomId } from '../xen/ids.ts';
import { bytePipe } from '../xen/pipe.ts';
import { XenstoreClient } from '../xen/xenstore-client.ts';
import type { Viewer } from './address-space.ts';
import { DomainNames } from './domain-names.ts';
import { Guest, type GuestPlace } from './guest.ts';
import { GuestDomain } from './guest-domain.ts';
import type { DomainLimits, DomainState, HostedDomain } from './hosted-domain.ts';
import type { HypercallPort } from './hypercalls.ts';
import { Hypervisor, type HypervisorOptions } from './hypervisor.ts';
import type { Iommu } from './iommu.ts';
import { buildStoreRing, connectToStore, serveStore } from './store-ring.ts';
import {
  DOM0_NAME,
  deviceSpecs,
  type GuestDevices,
  writeDom0Home,
  writeHome,
} from './toolstack.ts';
import { GuestThread } from './worker/guest-thread.ts';
import type { Quotas } from './xenstored/quotas.ts';
import { Xenstored } from './xenstored/server.ts';

export interface XenHostOptions extends HypervisorOptions {
  readonly quotas?: Quotas;
  /** The IOMMU of the machine, in front of the driver domain's devices. */
  readonly iommu?: Iommu;
  /** What stands between the code of domains in this thread and the hypervisor: the observers of a simulation. */
  readonly throughPort?: (port: HypercallPort) => HypercallPort;
}

/** What `xl create` is told about a guest. */
export interface GuestConfig extends GuestDevices {
  readonly name: string;
  readonly limits?: Partial<DomainLimits>;
}

/** A guest whose code runs in a thread of its own. */
export interface GuestWorkerConfig extends GuestConfig {
  /** The module that the thread runs; it begins with `enterGuest()`. */
  readonly module: URL;
  /** For the guest's code; must be cloneable. */
  readonly arguments?: unknown;
}

export class XenHost implements AsyncDisposable {
  readonly hypervisor: Hypervisor;
  readonly xenstored: Xenstored;
  /** The driver domain. */
  readonly dom0: GuestDomain;
  /** The domains that run, domain 0 included, by their names. */
  readonly names = new DomainNames();
  readonly runtime: Runtime;
  readonly #guests = new Map<DomId, Guest>();
  /** Xenstored's connections to the guests. */
  readonly #served = new Map<DomId, AsyncDisposable>();
  readonly #throughPort: (port: HypercallPort) => HypercallPort;

  private constructor(options: XenHostOptions) {
    const { runtime, quotas, iommu, throughPort = (port) => port } = options;
    this.runtime = runtime;
    this.#throughPort = throughPort;
    this.hypervisor = new Hypervisor(options);
    this.xenstored = new Xenstored({ runtime, ...(quotas && { quotas }) });
    this.dom0 = new GuestDomain({
      port: throughPort(this.hypervisor.enter(DOM0)),
      runtime,
      connectStore: () => this.#connectDom0(),
      iommu,
    });
    this.hypervisor.onDomainChange((domid, state) => this.#onDomainChange(domid, state));
    this.names.add(DOM0, DOM0_NAME);
  }

  /** Switches the machine on: domain 0 is there, with xenstored in it. @throws SysError */
  static async start(options: XenHostOptions): Promise<XenHost> {
    const host = new XenHost(options);
    await writeDom0Home(host.dom0.store);
    return host;
  }

  /** The guests that are not gone. */
  get guests(): readonly Guest[] {
    return [...this.#guests.values()];
  }

  /** A guest whose code will run in this thread, by `enter`. @throws SysError */
  async createGuest(config: GuestConfig): Promise<Guest> {
    const { guest } = await this.#create(config, 'this-thread');
    return guest;
  }

  /** The domain of a guest, for code in this thread. */
  enter({ domid }: Guest, runtime: Runtime = this.runtime): GuestDomain {
    const port = this.#throughPort(this.hypervisor.enter(domid));
    return new GuestDomain({
      port,
      runtime,
      connectStore: (events) => connectToStore(port, { runtime, events }),
    });
  }

  /**
   * Creates a guest and starts its code in a thread of its own.
   * @throws SysError
   * @throws DataCloneError (DOMException) when the arguments cannot be cloned
   */
  async startGuestWorker(config: GuestWorkerConfig): Promise<Guest> {
    const { module, arguments: args } = config;
    const { hypervisor: world } = this;
    const { log } = this.runtime;
    return this.#createElsewhere(config, {
      viewer: 'other-thread',
      start: (domain) => new GuestThread({ world, domain, module, arguments: args, log }),
    });
  }

  /** Creates a guest whose code runs in another process, which `start` connects to its domain. @throws SysError */
  createGuestElsewhere(
    config: GuestConfig,
    start: (domain: HostedDomain) => GuestPlace,
  ): Promise<Guest> {
    return this.#createElsewhere(config, { viewer: 'other-process', start });
  }

  /** Destroys every guest, then domain 0, and switches the machine off. */
  async [Symbol.asyncDispose](): Promise<void> {
    const gone = Promise.all(this.guests.map((guest) => guest.destroy()));
    for (const guest of this.guests) guest.cutOff();
    await gone;
    await this.dom0[Symbol.asyncDispose]();
    this.xenstored.close();
    this.hypervisor[Symbol.dispose]();
  }

  #connectDom0(): XenstoreClient {
    const runtime = this.runtime;
    const [client, server] = bytePipe(runtime);
    this.xenstored.accept({ channel: server, domid: DOM0 });
    return new XenstoreClient({ runtime, channel: client });
  }

  async #createElsewhere(
    config: GuestConfig,
    { viewer, start }: { viewer: Viewer; start: (domain: HostedDomain) => GuestPlace },
  ): Promise<Guest> {
    const { guest, domain } = await this.#create(config, viewer);
    try {
      guest.runsIn(start(domain));
    } catch (error) {
      await guest.destroy();
      throw error;
    }
    return guest;
  }

  async #create(
    config: GuestConfig,
    viewer: Viewer,
  ): Promise<{ guest: Guest; domain: HostedDomain }> {
    const { name, limits = {} } = config;
    const domain = this.hypervisor.createDomain({ name, limits, viewer });
    const { domid } = domain;
    const uuid = uuidFrom(this.runtime);
    const devices = deviceSpecs(domid, config);
    const { hypervisor, dom0, xenstored } = this;
    const runtime = this.runtime;
    const guest = new Guest({ runtime, hypervisor, store: dom0.store, domain, uuid, devices });
    this.#guests.set(domid, guest);
    void guest.gone.then(() => this.#guests.delete(domid));
    const build = async () => {
      domain.storeRing = buildStoreRing(hypervisor, domain);
      // As libxl: who hears that a domain was introduced finds its home.
      await writeHome(dom0.store, domain, { uuid, devices });
      this.#served.set(domid, await serveStore({ runtime, dom0, xenstored }, domain));
    };
    try {
      const built = build();
      guest.isBuiltBy(built);
      await built;
      if (domain.state === 'running') this.names.add(domid, name);
      return { guest, domain };
    } catch (error) {
      await guest.destroy();
      throw error;
    }
  }

  #onDomainChange(domid: DomId, state: DomainState): void {
    if (state !== 'running') this.names.remove(domid);
    if (state === 'shutdown') {
      this.xenstored.domainShutdown(domid);
      this.#inBackground(domid, this.#guests.get(domid)?.destroy());
    } else if (state === 'dying') {
      const served = this.#served.get(domid);
      this.#served.delete(domid);
      this.#inBackground(domid, served?.[Symbol.asyncDispose]());
    }
  }

  /** What a change of state sets off has nobody who waits for it. */
  #inBackground(domid: DomId, done: PromiseLike<void> | undefined): void {
    done?.then(undefined, (error: unknown) => {
      this.runtime.log.error({ err: error, domid }, 'taking a domain away failed');
    });
  }
}

/** A random UUID (RFC 9562, version 4), from the runtime's own chance. */
function uuidFrom({ random }: Runtime): string {
  const bytes = random.bytes(16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Buffer.from(bytes).toString('hex');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
