// What a backend's device class (displays, input) gives to the xenbus machinery, and what it gets.
//
// The machinery owns the states (xenbus.h: Initialising .. Closed) and the order of things; a driver
// only says what to announce before the frontend starts and what to build when it has published.

import type { Work } from '../../runtime/confinement.ts';
import type { Logger, Runtime } from '../../runtime/runtime.ts';
import type { Scope } from '../../runtime/scope.ts';
import type { Domain } from '../domain.ts';
import type { DomId } from '../ids.ts';
import type { Contiguity, MemoryPool } from '../memory.ts';
import type { Untrusted } from '../untrusted.ts';

/** Kinds of the ledger that only a device's driver knows of; the pages are those it is about to map. */
export type DriverCharge = Partial<
  Record<
    'bytes' | 'pages' | 'refs' | 'connectors' | 'buffers' | 'framebuffers' | 'requests',
    number
  >
>;

/** Work that a guest may cause at a rate: what is more waits. */
export type RateKind =
  | 'requestsPerSecond'
  | 'wakeupsPerSecond'
  | 'storeEventsPerSecond'
  | 'mappedPagesPerSecond';

/** A buffer of a guest, as the ledger lists it. */
export interface HeldBuffer {
  /** For people: what the guest calls it. */
  readonly name: string;
  readonly pages: number;
  /** Whose memory it is: the guest's, which we map, or ours, which the guest maps. */
  readonly direction: 'from-guest' | 'to-guest';
  /** How its pages lie, and whether drivers of this host have it as a dma-buf; unknown until it is made. */
  readonly contiguity: Contiguity | undefined;
  readonly dmaBuf: boolean;
  /** `quarantined`: released, and still in use by one of the holders. */
  readonly state: 'creating' | 'live' | 'releasing' | 'quarantined' | 'released';
  /** Who is waited for. */
  readonly holders: readonly {
    readonly who: string;
    readonly pages: number;
    readonly evidence: string;
  }[];
  /** Resolves when it is over and nothing of it is held. */
  readonly gone: Promise<void>;
}

/** Our domain, as far as backends act for a guest: they map, lend and bind, and look at what the guest wrote. */
export interface ChargedDomain extends Pick<Domain, 'domid' | 'grants' | 'foreign' | 'memory'> {
  readonly events: Pick<Domain['events'], 'bindInterdomain'>;
  readonly store: Pick<Domain['store'], 'read' | 'watch'>;
}

/** One guest, as its devices' backends see it. */
export interface GuestContext {
  readonly domid: DomId;
  /** What we hold through it is charged to this guest. */
  readonly domain: ChargedDomain;
  /** Closes when the guest is gone; devices live in scopes inside. */
  readonly scope: Scope;
  readonly log: Logger;
  /** Counts something that this guest was refused, by the violation's reason. */
  countRefusal(reason: string): void;
  /**
   * Charges what a driver holds for the guest besides what `domain` charges by itself; disposing the
   * result gives it back. @throws ProtocolViolation (XEN_ENOMEM) when it would exceed the guest's budget
   */
  charge(amounts: DriverCharge): Disposable;
  /** Enters work that the guest causes. */
  spend(kind: RateKind, amount: number): void;
  /**
   * Undefined while the guest is within its rate; else, which is counted, what to wait for before anything more is
   * done for it. That resolves at the latest when `signal` aborts, and never rejects.
   */
  rest(kind: RateKind, signal: AbortSignal): Promise<void> | undefined;
  /** Enters a buffer into the guest's row, which lives at least as long. */
  track(buffer: HeldBuffer): void;
  /** Memory set aside for this guest alone, from the first call on. @throws SysError */
  pool(): Promise<MemoryPool>;
}

/** Largest number of a device; toolstacks count a guest's devices of a type from 0. */
export const DEVID_MAX = 0xffff;

/** One PV device of a guest: `backend/<type>/<domid>/<devid>` in our xenstore directory. */
export interface BackendDevice {
  /** Handlers of its event channels and watches are confined. */
  readonly guest: GuestContext;
  /** Its tasks are confined. */
  readonly runtime: Runtime;
  readonly type: string;
  readonly devid: number;
  readonly backendPath: string;
  /** From our own backend node, never from what the guest wrote (XSA-175). */
  readonly frontendPath: string;
  readonly log: Logger;
  /** Closes when the device is taken from the guest; connections live in scopes inside. */
  readonly scope: Scope;
  /** A node of our own directory, written by the toolstack or by us; `key` may have slashes. */
  readBackend(key: string): Promise<string | undefined>;
  writeBackend(key: string, value: string): Promise<void>;
  /**
   * A node of the frontend's directory: whatever the guest wrote. What is read while connecting is
   * remembered, and when it changes the connection is made anew.
   * @throws ProtocolViolation `oversized-node` when the value is longer than any that a driver needs
   */
  readFrontend(key: string): Promise<Untrusted<string> | undefined>;
  /**
   * While connecting, once everything is mapped and before anything is written: whether the frontend still is where it
   * was, so that what was mapped is what it means. A frontend that starts anew says so before it takes pages back, and
   * uses their references again for others.
   * @throws FrontendMovedOn, which ends the connecting and is nobody's fault
   */
  confirmPublished(): Promise<void>;
  /**
   * `work` for whoever else calls it, as an output does: what it throws ends this connection, and nothing else.
   * The handlers, watches and tasks of `guest` and `runtime` are confined already.
   */
  confined<A = void>(work: Work<A>): Work<A>;
  /**
   * Gives up on this connection: writes the reason to the device's `error` node, releases everything
   * the connection held and goes Closing, Closed, then waits for the frontend to start anew.
   * Safe to call at any time, also from an event handler; only the first call of a connection counts.
   */
  fail(error: Error): void;
}

export interface BackendDriver {
  /** Directory name below `backend/`, as `vdispl`. */
  readonly type: string;
  /**
   * Whether a frontend that was Connected to an earlier backend goes on with the page and port that it
   * published (xen-kbdfront). Others, such as displays, have to start anew.
   */
  readonly resumable?: boolean;
  /** Writes what the frontend may read before it publishes (versions, features); InitWait follows. */
  announce(device: BackendDevice): Promise<void>;
  /**
   * The frontend has published its side (Initialised, or Connected for frontends that do not wait).
   * Reads it, maps and binds, and registers all of it in `scope`, whose closing is the disconnect.
   * Connected follows. @throws ProtocolViolation when what the guest published is unusable
   */
  connect(device: BackendDevice, scope: Scope): Promise<void>;
}
