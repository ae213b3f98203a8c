// A guest of a simulated world, for those who manage guests.

import type { Guest } from '../../src/hypervisor/guest.ts';
import type { Sharer } from '../sharing/sharer.ts';

export interface GuestLife {
  readonly guest: Guest;
  /** It keeps the rules, and must be served. */
  readonly honest: boolean;
  /** Frames that it has shown. */
  readonly frames: number;
  /** Its program that shares, where it has one. */
  readonly sharer: Sharer | undefined;
  /** Keys that it believes to be pressed. */
  readonly keysDown: number;
  start(): void;
  /** It was asked to shut down. */
  shutDown(): Promise<void>;
  /** Its domain is over, and so is every program in it. */
  end(): void;
}
