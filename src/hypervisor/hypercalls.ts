// What a domain can ask of the hypervisor, as a table of named calls: the same for a domain in this
// thread and for one in a worker or in another process, whose calls come as messages.
//
// Invariants: a call is done when it returns; one that throws has changed nothing. Everything in a request
// is the guest's word: the numbers are checked here, the rest by the tables.

import { SysError } from '../runtime/errors.ts';
import type { DomId, Port } from '../xen/ids.ts';
import type { Window } from './address-space.ts';
import { type GrantWorld, mapGrants, unmapGrants } from './grant-operations.ts';
import type { HostedDomain, ShutdownReason, VirtualCpu } from './hosted-domain.ts';
import {
  decreaseReservation,
  type Exchanged,
  type ExchangeRequest,
  exchange,
  type Increased,
  type IncreaseRequest,
  increaseReservation,
} from './memory-operations.ts';

/** Frames or grants in one call, as /dev/xen/gntdev's limit of one mapping; 256 MiB. */
export const MAX_BATCH = 64 * 1024;

/** A stretch of the domain's addresses. */
export interface WindowRef {
  readonly window: number;
  /** In the hypervisor's process; absent for a domain in another one, which chooses its own. */
  readonly address?: bigint;
  readonly pages: number;
}

/** Every call takes one request; errors are `SysError`s. */
export interface Hypercalls {
  /** XENMEM_populate_physmap: new zeroed frames, and a window over them. ENOMEM */
  populate(request: { pages: number }): WindowRef & { readonly frames: Uint32Array };
  /** XENMEM_increase_reservation: new zeroed frames without a window, as many extents as there are. EINVAL */
  increase(request: IncreaseRequest): Increased;
  /** XENMEM_decrease_reservation: gives extents back; how many, up to the first that is not ours. */
  decrease(request: { frames: Uint32Array; extentOrder: number }): number;
  /** XENMEM_exchange: frames of ours that nobody maps for others. EINVAL, EPERM */
  exchange(request: ExchangeRequest): Exchanged;
  /** A window over frames of our own, in their order. EINVAL, ENOMEM */
  openWindow(request: { frames: Uint32Array }): WindowRef;
  /** Closes a window over our own frames. EINVAL */
  closeWindow(request: { window: number }): void;
  /** GNTTABOP_setup_table: a table of so many pages at least. @returns its frames. ENOSPC */
  setupGrantTable(request: { frames: number }): Uint32Array;
  /**
   * GNTTABOP_map_grant_ref: a window in which the page of each failed operation is missing, and whether all of it is
   * shown. With `device` (GNTMAP_device_map) nothing ever is, and `frames` says where devices find each page, 0 for a
   * failed one; else it is empty. ENOMEM; E2BIG when the pages are so scattered that the window would take more than
   * `maxAreas` entries of this process's memory map.
   */
  mapGrants(request: {
    domid: DomId;
    refs: Uint32Array;
    writable: boolean;
    device: boolean;
    maxAreas: number;
  }): WindowRef & {
    readonly statuses: Int16Array;
    readonly frames: Uint32Array;
    readonly areas: number;
    readonly shown: boolean;
  };
  /**
   * Shows some more of a window over grants, as Xen does a long hypercall in parts so that others get their turn.
   * @returns whether all is shown. EINVAL, ENOMEM
   */
  showGrants(request: { window: number }): boolean;
  /** GNTTABOP_unmap_grant_ref for everything in a window. EINVAL */
  unmapGrants(request: { window: number }): Int16Array;
  /** EVTCHNOP_alloc_unbound. ENOSPC */
  allocUnbound(request: { remote: DomId }): Port;
  /** EVTCHNOP_bind_interdomain. ENOSPC, ESRCH, EINVAL */
  bindInterdomain(request: { remote: DomId; remotePort: Port }): Port;
  /** EVTCHNOP_close. EINVAL */
  closePort(request: { port: Port }): void;
  /** SCHEDOP_shutdown: the domain stops; its own word for why. */
  shutdown(request: { reason: ShutdownReason }): void;
}

export type HypercallName = keyof Hypercalls;
export type HypercallRequest<N extends HypercallName> = Parameters<Hypercalls[N]>[0];
export type HypercallResult<N extends HypercallName> = ReturnType<Hypercalls[N]>;

/** What a domain's own code stands on, whichever thread or process it runs in. */
export interface HypercallPort {
  readonly domid: DomId;
  /** Our grant table, long enough for its limit; only pages that were set up may be touched. */
  readonly grantTable: Uint8Array;
  /** Pages that our grant table may have. */
  readonly maxGrantFrames: number;
  /** Frames of one extent that we may ask for, as a power of 2. */
  readonly maxExtentOrder: number;
  readonly sharedInfo: Uint8Array;
  /** The page and port to xenstored; domain 0 has none. */
  readonly store: { readonly page: Uint8Array; readonly port: Port } | undefined;
  call<N extends HypercallName>(name: N, request: HypercallRequest<N>): Promise<HypercallResult<N>>;
  /** EVTCHNOP_send; does nothing when the port is closed. */
  notify(port: Port): void;
  /** The bytes of a window that the hypervisor opened. @throws SysError ENOMEM without room for a view */
  view(window: WindowRef): Uint8Array;
  /** There will be no view of a window: its addresses can be given back as soon as it is closed. */
  forgoView(window: WindowRef): void;
  /** Who is called when the shared info page has news, who learns that the domain is over, who is asked. */
  run(cpu: VirtualCpu): void;
}

/** What the calls need of the hypervisor. */
export interface HypercallWorld extends GrantWorld {
  shutdown(domid: DomId, reason: ShutdownReason): void;
}

/** The calls of one domain. */
export class HypercallTable implements Hypercalls {
  readonly #world: HypercallWorld;
  readonly #domain: HostedDomain;

  constructor(world: HypercallWorld, domain: HostedDomain) {
    this.#world = world;
    this.#domain = domain;
  }

  populate({ pages }: HypercallRequest<'populate'>): HypercallResult<'populate'> {
    const { domid, limits, space } = this.#domain;
    const { memory } = this.#world;
    space.reserve();
    if (memory.ownedBy(domid) + pages > limits.maxFrames) {
      throw this.#error('XENMEM_populate_physmap', 'ENOMEM', {
        context: `${pages} pages for domain ${domid}, which has ${memory.ownedBy(domid)} of its ${limits.maxFrames}`,
        remedy: 'give the domain more memory',
      });
    }
    const frames = memory.allocate(domid, pages);
    if (!frames) {
      throw this.#error('XENMEM_populate_physmap', 'ENOMEM', {
        context: `${pages} pages for domain ${domid}, where the machine has ${memory.freeFrames} free`,
        remedy: 'give the machine more memory',
      });
    }
    try {
      return { ...windowRef(this.#openOwn(frames)), frames };
    } catch (error) {
      memory.relinquish(domid, frames);
      throw error;
    }
  }

  increase(request: IncreaseRequest): Increased {
    return increaseReservation(this.#world.memory, this.#domain, request);
  }

  decrease(request: HypercallRequest<'decrease'>): number {
    return decreaseReservation(this.#world.memory, this.#domain, request);
  }

  exchange(request: ExchangeRequest): Exchanged {
    return exchange(this.#world.memory, this.#domain, request);
  }

  openWindow({ frames }: HypercallRequest<'openWindow'>): WindowRef {
    const { domid, space } = this.#domain;
    const { memory } = this.#world;
    space.reserve();
    const foreign = frames.find((frame) => !memory.isAllocatedTo(frame, domid));
    if (foreign === undefined) return windowRef(this.#openOwn(frames));
    throw this.#error('mmap', 'EINVAL', { context: `frame ${foreign} is not of domain ${domid}` });
  }

  closeWindow({ window }: HypercallRequest<'closeWindow'>): void {
    const open = this.#window('munmap', window);
    if (open.handles) throw this.#error('munmap', 'EINVAL', { context: 'a window over grants' });
    this.#domain.space.close(open);
    this.#world.memory.release(open.frames);
  }

  setupGrantTable({ frames }: HypercallRequest<'setupGrantTable'>): Uint32Array {
    const { grants } = this.#domain;
    if (grants.grow(frames)) return grants.frames;
    throw this.#error('GNTTABOP_setup_table', 'ENOSPC', {
      context: `a grant table of ${frames} pages for domain ${this.#domain.domid}`,
      remedy: 'raise max_grant_frames of the domain',
    });
  }

  mapGrants(request: HypercallRequest<'mapGrants'>): HypercallResult<'mapGrants'> {
    const { window, statuses, areas } = mapGrants(this.#world, this.#domain, request);
    const frames = request.device ? window.frames.slice() : new Uint32Array(0);
    try {
      const shown = this.#domain.space.showMore(this.#world.memory, window.id);
      return { ...windowRef(window), statuses, frames, areas, shown };
    } catch (error) {
      this.unmapGrants({ window: window.id });
      throw error;
    }
  }

  showGrants({ window }: HypercallRequest<'showGrants'>): boolean {
    const { id } = this.#window('GNTTABOP_map_grant_ref', window);
    return this.#domain.space.showMore(this.#world.memory, id);
  }

  unmapGrants({ window }: HypercallRequest<'unmapGrants'>): Int16Array {
    const open = this.#window('GNTTABOP_unmap_grant_ref', window);
    const { handles } = open;
    if (handles) return unmapGrants(this.#world, this.#domain, { ...open, handles });
    throw this.#error('GNTTABOP_unmap_grant_ref', 'EINVAL', { context: 'a window over no grants' });
  }

  allocUnbound({ remote }: HypercallRequest<'allocUnbound'>): Port {
    return this.#domain.ports.allocUnbound(remote);
  }

  bindInterdomain(request: HypercallRequest<'bindInterdomain'>): Port {
    const { remote, remotePort } = request;
    const peer = this.#world.domain(remote);
    if (peer) return this.#domain.ports.bindInterdomain(peer.ports, remotePort);
    throw this.#error('EVTCHNOP_bind_interdomain', 'ESRCH', {
      context: `binding to port ${remotePort} of domain ${remote}, which does not exist`,
    });
  }

  closePort({ port }: HypercallRequest<'closePort'>): void {
    this.#domain.ports.close(port);
  }

  shutdown({ reason }: HypercallRequest<'shutdown'>): void {
    this.#world.shutdown(this.#domain.domid, reason);
  }

  /** A window over frames that are allocated to us. @throws SysError */
  #openOwn(frames: Uint32Array): Window {
    const { memory } = this.#world;
    const { space } = this.#domain;
    const mapping = space.show(memory, frames, true);
    for (const frame of frames) memory.reference(frame);
    return space.add({ mapping, frames });
  }

  #window(call: string, id: number): Window {
    const window = this.#domain.space.get(id);
    if (window) return window;
    const context = `domain ${this.#domain.domid} has no window ${id}`;
    throw this.#error(call, 'EINVAL', { context });
  }

  #error(call: string, errnoName: string, details: { context: string; remedy?: string }): SysError {
    return new SysError({ call, errnoName, ...details });
  }
}

function windowRef({ id, mapping, frames }: Window): WindowRef {
  const ref = { window: id, pages: frames.length };
  return mapping ? { ...ref, address: mapping.address } : ref;
}
