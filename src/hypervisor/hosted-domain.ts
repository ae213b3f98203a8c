// One domain as the hypervisor holds it: its tables, its windows into memory, and where it is in its life.

import type { Mapping } from '../posix/mapping.ts';
import type { DomId } from '../xen/ids.ts';
import type { AddressSpace } from './address-space.ts';
import type { EventPorts } from './event-channels.ts';
import type { GrantTable } from './grant-table.ts';
import type { Maptrack } from './maptrack.ts';

/**
 * `shutdown`: stopped (by itself, or crashed), everything still in place until somebody destroys it.
 * `dying`: everything given back except frames of its own that others still map. `dead`: gone.
 */
export type DomainState = 'running' | 'shutdown' | 'dying' | 'dead';

/** SHUTDOWN_* of xen/include/public/sched.h, those that we tell apart. */
export type ShutdownReason = 'poweroff' | 'reboot' | 'crash';

/** How much one domain may have, as xl.cfg sets it. */
export interface DomainLimits {
  /** Frames of memory. */
  readonly maxFrames: number;
  readonly maxGrantFrames: number;
  readonly maxMaptrackFrames: number;
  readonly maxEventChannels: number;
}

/** The processor that runs the domain: how it is told of events, and that it is over. */
export interface VirtualCpu {
  /** The shared info page has news. */
  upcall(): void;
  /** The domain does not run any more: hypercalls fail from now on. */
  stopped(): void;
}

export interface HostedDomain {
  readonly domid: DomId;
  readonly name: string;
  readonly limits: DomainLimits;
  readonly grants: GrantTable;
  readonly maptrack: Maptrack;
  readonly ports: EventPorts;
  readonly sharedInfo: Mapping;
  readonly sharedInfoFrame: Uint32Array;
  readonly space: AddressSpace;
  state: DomainState;
  shutdownReason: ShutdownReason | undefined;
  cpu: VirtualCpu | undefined;
}
