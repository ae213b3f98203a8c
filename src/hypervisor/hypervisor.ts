// Xen in this process: the machine's memory, the domains, and the calls by which domains ask for
// something. What it does not reproduce of the real one stands in docs/fidelity.md.
//
// A domain's life: created, running, stopped (by itself, crashed, or paused by the toolstack), destroyed. Destroying takes away at
// once everything it mapped, all ports and all of its frames that nobody maps; while others map some
// the domain is dying, visible with those who hold it; with the last of them it is dead.

import assert from 'node:assert/strict';
import { DOMID_FIRST_RESERVED, DOMID_XEN } from '../abi/xen.ts';
import { SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { DOM0, type DomId, domId } from '../xen/ids.ts';
import { AddressSpace, type Viewer } from './address-space.ts';
import type { HypervisorBooks } from './books.ts';
import { DEFAULT_MAX_EVENT_CHANNELS, EventPorts } from './event-channels.ts';
import { unmapGrants } from './grant-operations.ts';
import { DEFAULT_MAX_GRANT_FRAMES, GrantTable } from './grant-table.ts';
import type { DomainLimits, DomainState, HostedDomain, ShutdownReason } from './hosted-domain.ts';
import { type HypercallPort, HypercallTable, type HypercallWorld } from './hypercalls.ts';
import { LocalPort } from './local-port.ts';
import {
  type AllocationFault,
  DEFAULT_MACHINE_FRAMES,
  MachineMemory,
  mapFrames,
} from './machine-memory.ts';
import { DEFAULT_MAX_MAPTRACK_FRAMES, Maptrack } from './maptrack.ts';
import { DEFAULT_MAX_EXTENT_ORDER, DOM0_MAX_EXTENT_ORDER } from './memory-operations.ts';

/** 512 MiB; taken only when used. */
export const DEFAULT_LIMITS: DomainLimits = {
  maxFrames: 2 ** 17,
  maxExtentOrder: DEFAULT_MAX_EXTENT_ORDER,
  maxGrantFrames: DEFAULT_MAX_GRANT_FRAMES,
  maxMaptrackFrames: DEFAULT_MAX_MAPTRACK_FRAMES,
  maxEventChannels: DEFAULT_MAX_EVENT_CHANNELS,
};

/** Names in the parking place of views, beside the windows' ids, which are positive. */
const GRANT_TABLE_VIEW = -1;
const SHARED_INFO_VIEW = -2;

export interface HypervisorOptions {
  readonly runtime: Runtime;
  readonly machineFrames?: number;
  /** Of domain 0. */
  readonly dom0Limits?: Partial<DomainLimits>;
  /** Makes allocations of frames fail, for tests and simulations. */
  readonly allocationFault?: AllocationFault;
}

export interface DomainOptions {
  readonly name: string;
  readonly limits?: Partial<DomainLimits>;
  /** Where the domain's code will run; in this thread unless said. */
  readonly viewer?: Viewer;
}

/** Learns that a domain was created or went into another state. */
export type DomainListener = (domid: DomId, state: DomainState) => void;

export class Hypervisor implements HypercallWorld, Disposable {
  readonly memory: MachineMemory;
  readonly #runtime: Runtime;
  readonly #domains = new Map<DomId, HostedDomain>();
  readonly #listeners = new Set<DomainListener>();
  #lastDomid = -1;

  /** A machine with its domain 0. @throws SysError */
  constructor(options: HypervisorOptions) {
    const { runtime, machineFrames = DEFAULT_MACHINE_FRAMES, allocationFault } = options;
    this.#runtime = runtime;
    this.memory = new MachineMemory({
      frames: machineFrames,
      onFreed: (owner) => this.#settle(owner as DomId),
      ...(allocationFault && { fault: allocationFault }),
    });
    const limits = { maxExtentOrder: DOM0_MAX_EXTENT_ORDER, ...options.dom0Limits };
    const dom0 = this.createDomain({ name: 'Domain-0', limits });
    assert.equal(dom0.domid, DOM0);
  }

  /** Calls `listener` for every change of a domain's state, until the result is disposed. */
  onDomainChange(listener: DomainListener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  /** A domain that may run, with nothing but its tables. @throws SysError */
  createDomain({ name, limits, viewer = 'this-thread' }: DomainOptions): HostedDomain {
    const domid = this.#nextDomid();
    const domain: HostedDomain = {
      ...this.#makeTables(domid, { ...DEFAULT_LIMITS, ...limits }),
      name,
      space: new AddressSpace(viewer),
      storeRing: undefined,
      state: 'running',
      shutdownReason: undefined,
      cpu: undefined,
    };
    this.#domains.set(domid, domain);
    this.#announce(domain);
    return domain;
  }

  /** The domain, unless it is dead or never was. */
  domain(domid: DomId): HostedDomain | undefined {
    return this.#domains.get(domid);
  }

  get domains(): Iterable<HostedDomain> {
    return this.#domains.values();
  }

  /** The port for a domain whose code runs in this thread. */
  enter(domid: DomId): HypercallPort {
    const domain = this.#existing(domid);
    return new LocalPort(this.#runtime, domain, new HypercallTable(this, domain));
  }

  /** Stops a domain; whoever manages domains learns of it and destroys it. */
  shutdown(domid: DomId, reason: ShutdownReason): void {
    const domain = this.#existing(domid);
    if (domain.state !== 'running') return;
    domain.shutdownReason = reason;
    this.#enterState(domain, 'shutdown');
  }

  /** Stops a domain from outside; the toolstack does it before it destroys one. */
  pause(domid: DomId): void {
    const domain = this.#existing(domid);
    if (domain.state === 'running') this.#enterState(domain, 'paused');
  }

  /**
   * Takes everything away from a domain; one in another process has to have let go of what it sees, which we
   * cannot revoke. Does nothing when it is dying or dead.
   */
  destroy(domid: DomId): void {
    const domain = this.#domains.get(domid);
    if (!domain || domain.state === 'dying') return;
    this.#enterState(domain, 'dying');
    for (const window of [...domain.space.windows]) {
      const { handles } = window;
      if (handles) {
        unmapGrants(this, domain, { ...window, handles });
      } else {
        domain.space.close(window);
        this.memory.release(window.frames);
      }
    }
    assert.equal(domain.maptrack.used, 0, 'every mapping was in a window');
    domain.ports.closeAll();
    this.memory.relinquish(domid, this.memory.allocatedTo(domid));
    this.#settle(domid);
  }

  /** What everybody has and uses. */
  books(): HypervisorBooks {
    const domains = [...this.#domains.values()];
    const maps = domains.map(({ domid, maptrack }) => ({
      domid,
      counts: maptrack.countByDomain(),
    }));
    return {
      freeFrames: this.memory.freeFrames,
      xenFrames: this.memory.ownedBy(DOMID_XEN),
      domains: domains.map(({ domid, name, state, grants, maptrack, ports, space, cpu }) => ({
        domid,
        name,
        state,
        frames: this.memory.ownedBy(domid),
        grantsMapped: grants.pinnedEntries,
        grantsGiven: grants.givenEntries,
        maptrackUsed: maptrack.used,
        ports: ports.open,
        windows: space.size,
        mappedBy: new Map(
          maps.flatMap(({ domid: by, counts }) =>
            counts.has(domid) ? [[by, counts.get(domid)!]] : [],
          ),
        ),
        kernel: cpu?.books?.(),
      })),
    };
  }

  /** Switches the machine off: every domain is destroyed. */
  [Symbol.dispose](): void {
    for (const domid of [...this.#domains.keys()].reverse()) this.destroy(domid);
    assert.equal(this.#domains.size, 0, 'a domain is left on a machine without mappings');
    this.memory[Symbol.dispose]();
  }

  /** The next number, wrapping as Xen's toolstack does; 0 is domain 0 for ever. */
  #nextDomid(): DomId {
    for (let tries = 0; tries < DOMID_FIRST_RESERVED; tries++) {
      this.#lastDomid = (this.#lastDomid + 1) % DOMID_FIRST_RESERVED;
      if (!this.#domains.has(this.#lastDomid as DomId)) return domId(this.#lastDomid);
    }
    throw outOfMemory('a number for one more domain');
  }

  /** What the hypervisor keeps for a domain. @throws SysError, with nothing left behind */
  #makeTables(domid: DomId, limits: DomainLimits) {
    const { memory } = this;
    const sharedInfoFrame = memory.allocate(DOMID_XEN, 1);
    if (!sharedInfoFrame) throw outOfMemory(`a shared info page for domain ${domid}`);
    try {
      const sharedInfo = mapFrames(memory, sharedInfoFrame, true);
      return {
        domid,
        limits,
        sharedInfo,
        sharedInfoFrame,
        grants: new GrantTable({ memory, owner: domid, maxFrames: limits.maxGrantFrames }),
        maptrack: new Maptrack(limits.maxMaptrackFrames),
        ports: new EventPorts({
          domid,
          limit: limits.maxEventChannels,
          sharedInfo: sharedInfo.bytes,
          wake: () => this.#wake(domid),
        }),
      };
    } catch (error) {
      memory.relinquish(DOMID_XEN, sharedInfoFrame);
      throw error;
    }
  }

  #wake(domid: DomId): void {
    const domain = this.#domains.get(domid);
    if (domain?.state === 'running') domain.cpu?.upcall();
  }

  #existing(domid: DomId): HostedDomain {
    const domain = this.#domains.get(domid);
    if (domain) return domain;
    const context = `domain ${domid} does not exist`;
    throw new SysError({ call: 'domctl', errnoName: 'ESRCH', context });
  }

  #enterState(domain: HostedDomain, state: DomainState): void {
    const wasRunning = domain.state === 'running';
    domain.state = state;
    if (wasRunning) domain.cpu?.stopped();
    this.#announce(domain);
  }

  #announce({ domid, state }: HostedDomain): void {
    for (const listener of [...this.#listeners]) listener(domid, state);
  }

  /** A dying domain of which nobody holds a frame any more is dead. */
  #settle(domid: DomId): void {
    const domain = this.#domains.get(domid);
    if (domain?.state !== 'dying' || this.memory.ownedBy(domid) > 0) return;
    this.#domains.delete(domid);
    domain.space.park(GRANT_TABLE_VIEW, domain.grants.mapping);
    domain.grants[Symbol.dispose]();
    domain.space.park(SHARED_INFO_VIEW, domain.sharedInfo);
    this.memory.relinquish(DOMID_XEN, domain.sharedInfoFrame);
    this.#enterState(domain, 'dead');
  }
}

function outOfMemory(context: string): SysError {
  const remedy = 'give the machine more memory';
  return new SysError({ call: 'domctl createdomain', errnoName: 'ENOMEM', context, remedy });
}
