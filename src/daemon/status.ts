// What the daemon tells about itself: the JSON of GET /api/status, which others script against. Plain data,
// shared with the viewer page. Fields may be added, none renamed or removed.

import type { ConnectorStatus } from '../display/connector-status.ts';
import type { OutputStatus } from '../outputs/output-status.ts';

/** Where a guest is in its life, as far as its displays and inputs go. */
export type GuestState =
  /** Its devices are configured; its drivers have not connected yet. */
  | 'waiting'
  | 'connected'
  /** It is being disconnected, or gone; what it held is being released. */
  | 'closing'
  /** It was shut down; only hosts that can start it again still list it. */
  | 'stopped'
  | 'crashed';

export interface DisplayStatus extends ConnectorStatus {
  /** From a change to a viewer having drawn it, the last one; null while nobody watches. */
  readonly viewLatencyMs: number | null;
  readonly viewers: number;
}

export interface InputStatus {
  readonly state: 'waiting' | 'connected' | 'closed';
  /** Size of the absolute pointer's area; positions run from 0 to one less. */
  readonly area: { readonly width: number; readonly height: number };
}

/** One device of a guest, as it is served. */
export interface ServiceStatus {
  /** `vdispl`, `vkbd` or `vinput`. */
  readonly type: string;
  readonly devid: number;
  /** The states of the xenbus handshake, by name. */
  readonly backendState: string;
  readonly frontendState: string;
  /** How often it failed, by the guest's doing or ours, and was started anew. */
  readonly restarts: number;
  /** Why it failed last; null when it never did. */
  readonly lastError: string | null;
}

/** A buffer that a guest makes us hold. */
export interface BufferStatus {
  /** What the guest calls it. */
  readonly name: string;
  readonly pages: number;
  /** Whose memory it is: the guest's, which we map, or ours, which the guest maps. */
  readonly direction: 'from-guest' | 'to-guest';
  /** How its pages lie and how that is known; null until it is made. */
  readonly contiguity: { readonly kind: string; readonly proof: string } | null;
  /** Whether drivers of this host have it as a dma-buf. */
  readonly dmaBuf: boolean;
  readonly state: 'creating' | 'live' | 'releasing' | 'quarantined' | 'released';
  /** Who still has what of a buffer that is being released, and how that is known. */
  readonly holders: readonly {
    readonly who: string;
    readonly pages: number;
    readonly evidence: string;
  }[];
}

export interface GuestStatus {
  readonly domid: number;
  readonly name: string;
  readonly state: GuestState;
  readonly services: readonly ServiceStatus[];
  readonly displays: readonly DisplayStatus[];
  readonly input: InputStatus;
  /** What the guest makes us hold now, by the kinds of zcopy/budget.ts. */
  readonly held: Readonly<Record<string, number>>;
  /** The most of each kind, and the rates, that it may have. */
  readonly budget: Readonly<Record<string, number>>;
  readonly buffers: readonly BufferStatus[];
  /** How often it was refused something, by reason; `over-budget-KIND` where its budget is spent. */
  readonly refused: Readonly<Record<string, number>>;
  /** How often it was made to wait, by the rate that it went beyond. */
  readonly throttled: Readonly<Record<string, number>>;
}

/** What a person may do to a guest, where the host offers it. */
export const CONTROL_ACTIONS = ['stop', 'crash', 'restart'] as const;

export type ControlAction = (typeof CONTROL_ACTIONS)[number];

export interface DaemonStatus {
  readonly guests: readonly GuestStatus[];
  readonly host: {
    readonly provider: string;
    /** Which ways of sharing the host offers, by name, each with the reason. */
    readonly paths: Readonly<
      Record<
        string,
        { readonly available: boolean; readonly reason: string; readonly remedy?: string }
      >
    >;
    /** Where pictures go, and what became of it. */
    readonly output?: OutputStatus;
  };
  /** The actions offered; empty on a host whose toolstack starts and stops the guests. */
  readonly controls: readonly ControlAction[];
}
