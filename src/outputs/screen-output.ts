// What the daemon wants of an output beyond what the display backend asks: the screens that viewers and
// images read, whatever else shows the same pictures, and what is to be told about it.

import type { DisplayOutput } from '../display/output.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { DomId } from '../xen/ids.ts';
import type { Screen } from './screen.ts';

/** Plain data for the status, shared with the viewer page. */
export interface OutputStatus {
  /** `browser`, or the card: `card0 (vkms)`. */
  readonly name: string;
  /** Monitors, where the output has any. */
  readonly monitors: readonly MonitorStatus[];
  /** Guests' displays that have no monitor, and why. */
  readonly viewerOnly: readonly ViewerOnlyStatus[];
  /** What went wrong, by name, and how often. */
  readonly counters: Readonly<Record<string, number>>;
}

export interface MonitorStatus {
  readonly connector: string;
  readonly connected: boolean;
  /** The guest's display on it, or null. */
  readonly domid: number | null;
  readonly uniqueId: string | null;
  /** Whether it shows that display now. */
  readonly showing: boolean;
}

export interface ViewerOnlyStatus {
  readonly domid: number;
  readonly uniqueId: string;
  readonly reason: string;
}

/** Disposed after the last connector was. */
export interface ScreenOutput extends DisplayOutput, AsyncDisposable {
  /** The screen of a connector, or undefined when it is not connected now. */
  screen(domid: DomId, connector: number): Screen | undefined;
  status(): OutputStatus;
}

export interface ScreenOutputOptions {
  readonly runtime: Runtime;
  /** The rate that flips complete at where no hardware sets it. */
  readonly refreshHz?: number;
  /** Called when a screen came or went, or a monitor did. */
  readonly onChange?: () => void;
}
