// What is to be told about an output. Plain data, shared with the viewer page.

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
