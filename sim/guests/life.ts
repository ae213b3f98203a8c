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

/** One that breaks rules, or whose backend does: nobody owes it frames, and nobody counts its keys. */
export abstract class LifeWithoutClaim implements GuestLife {
  readonly honest = false;
  readonly frames = 0;
  readonly keysDown = 0;
  readonly sharer = undefined;
  readonly guest: Guest;

  constructor(guest: Guest) {
    this.guest = guest;
  }

  abstract start(): void;
  abstract end(): void;

  /** It does as it is told, if it feels like it; then somebody destroys it. */
  async shutDown(): Promise<void> {
    await this.guest.destroy();
  }
}
