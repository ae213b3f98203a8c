// The daemon as the server sees it: what it shows, where pictures come from, where input goes.

import type { GuestInput } from '../input/guest-input.ts';
import type { Screen } from '../outputs/screen.ts';
import type { DomId } from '../xen/ids.ts';
import type { ControlAction, DaemonStatus, GuestState } from './status.ts';

/** A guest of a host that can start it again, whether it runs now or not. */
export interface KnownGuest {
  /** The number it has, or had when it last ran. */
  readonly domid: DomId;
  readonly name: string;
  readonly state: GuestState;
}

/** Starting and stopping guests: only where this process is the host (the demo). */
export interface GuestControls {
  /** Every guest, so that one is listed also before its first device and after its last. */
  readonly guests: readonly KnownGuest[];
  /**
   * Resolves when the action is done: a stopped or crashed guest is gone and holds nothing; a restarted
   * one has been created anew, under a new domid.
   * @throws UsageError when the guest's state does not allow it
   */
  act(domid: DomId, action: ControlAction): Promise<void>;
}

export interface DaemonView {
  status(): DaemonStatus;
  /** What the guest is called, or undefined when there is none of that number in the status. */
  nameOf(domid: DomId): string | undefined;
  /** The screen of a guest's connector, or undefined when there is none now. */
  screen(domid: DomId, connector: number): Screen | undefined;
  /** A guest's keyboard and pointer, or undefined when it has none now. */
  input(domid: DomId): GuestInput | undefined;
  /** Calls `listener` when guests, screens or inputs came, went or changed state. */
  onChange(listener: () => void): Disposable;
  readonly controls: GuestControls | undefined;
}
