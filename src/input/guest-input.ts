// What others (the API, the viewer) do with a guest's keyboard and pointer. Codes are Linux evdev codes.

export interface Touch {
  /** Contact number, from 0. */
  readonly contact: number;
  readonly phase: 'down' | 'move' | 'up';
  readonly x: number;
  readonly y: number;
}

export interface GuestInput {
  /** `connected` when events reach the guest; events sent in any other state are dropped and counted. */
  readonly state: 'waiting' | 'connected' | 'closed';
  /** Size of the absolute pointer's area, in the guest's units (pixels unless the guest asked for raw). */
  readonly area: { readonly width: number; readonly height: number };
  /** A further press of a key that is down is its autorepeat: the Linux frontend repeats nothing by itself. */
  key(code: number, pressed: boolean): void;
  /** Relative motion. */
  motion(dx: number, dy: number): void;
  /** Absolute position inside `area`. */
  position(x: number, y: number): void;
  /** Wheel detents, positive away from the user (up). */
  wheel(delta: number): void;
  touch(touch: Touch): void;
  /** Releases every key, button and contact that is down: on focus loss and disconnect. */
  releaseAll(): void;
}
