// One domain as the hypervisor holds it: its tables, its windows into memory, and where it is in its life.

import type { Mapping } from '../posix/mapping.ts';
import type { DomId, Port } from '../xen/ids.ts';
import type { AddressSpace, Window } from './address-space.ts';
import type { KernelBooks } from './books.ts';
import type { EventPorts } from './event-channels.ts';
import type { GrantTable } from './grant-table.ts';
import type { Maptrack } from './maptrack.ts';

/**
 * `paused`: stopped by the toolstack; here for good, as its next step is to destroy it.
 * `shutdown`: stopped (by itself, or crashed), everything still in place until somebody destroys it.
 * `dying`: everything given back except frames of its own that others still map. `dead`: gone.
 */
export type DomainState = 'running' | 'paused' | 'shutdown' | 'dying' | 'dead';

/** SHUTDOWN_* of xen/include/public/sched.h, those that we tell apart. */
export type ShutdownReason = 'poweroff' | 'reboot' | 'crash';

/** How much one domain may have, as xl.cfg sets it. */
export interface DomainLimits {
  /** Frames of memory. */
  readonly maxFrames: number;
  /** Frames of one extent at most, as a power of 2 (memop-max-order). */
  readonly maxExtentOrder: number;
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
  /** What its kernel keeps; undefined where we cannot ask. */
  readonly books?: (() => KernelBooks) | undefined;
}

/** The page that a domain shares with xenstored, and the domain's end of its event channel. */
export interface StoreRing {
  readonly window: Window;
  readonly port: Port;
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
  /** Made by the domain builder; domain 0, which runs xenstored, has none. */
  storeRing: StoreRing | undefined;
  state: DomainState;
  shutdownReason: ShutdownReason | undefined;
  cpu: VirtualCpu | undefined;
}
