// Looks at a screen's picture on behalf of those who watch it, and tells each when there is something
// newer than it has seen.
//
// A guest may draw into the shown buffer without a word (a program with a single buffer does: displif has no message for
// it), so the picture is compared from time to time: at the full refresh rate while it changes, ever more
// slowly while it stands still, and at once when the guest flips. Invariants: a watcher is told once per
// request, never unasked, so a slow one is never behind a queue; nothing is compared, kept or timed while
// nobody waits for a change; the comparison copy exists only while somebody watches.

import type { Picture } from '../display/output.ts';
import type { Runtime, Timer } from '../runtime/runtime.ts';
import { DamageTracker } from './damage.ts';
import type { LookingTime } from './looking-time.ts';

/** Longest time between two looks at a picture that stands still. */
const STILL_INTERVAL_MS = 125;

/** How much longer each look that found nothing makes the wait for the next one. */
const SLOWING = 1.5;

/** A guest that flips is looked at when it flips; the timed looks begin this long after its last flip. */
const AFTER_FLIP_MS = 100;

/** Looking at one screen takes at most this share of the time; `LookingTime` bounds what all of them take. */
const LOOKING_SHARE = 0.25;

/** How long the looks stay at the full rate after something that usually causes a change. */
const STIRRED_MS = 250;

export interface Watcher {
  /** There are tiles newer than the generation of the request; `changedAtMs` is when the newest were seen. */
  onDamage(damage: DamageTracker, changedAtMs: number): void;
  /** The screen is gone; nothing follows. */
  onClosed(): void;
}

/** One watcher's subscription; disposing it ends the watching. */
export interface Watch extends Disposable {
  /** Asks to be told, once, when something is newer than generation `seen` (0: everything is). */
  request(seen: number): void;
}

interface Subscription {
  readonly watcher: Watcher;
  /** What the watcher has seen, while it waits for more; undefined while it does not wait. */
  seen: number | undefined;
}

export interface WatchingOptions {
  readonly periodMs: number;
  readonly shown: () => Picture | undefined;
  /** Shared with the other screens. */
  readonly looking: LookingTime;
}

export class Watching {
  readonly #runtime: Runtime;
  readonly #periodMs: number;
  readonly #shown: () => Picture | undefined;
  readonly #looking: LookingTime;
  readonly #subscriptions = new Set<Subscription>();
  #damage: DamageTracker | undefined;
  /** Copies made for trackers that are gone. */
  #bytesCopiedBefore = 0;
  #timer: Timer | undefined;
  /** Our place among those who want to look, while we wait for our turn. */
  #queued: Disposable | undefined;
  #intervalMs: number;
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #lookTookMs = 0;
  #changedAtMs = 0;
  #flippedAtMs = Number.NEGATIVE_INFINITY;
  #stirredUntilMs = Number.NEGATIVE_INFINITY;
  /** Whether another picture is shown than at the last look. */
  #switched = true;

  constructor(runtime: Runtime, { periodMs, shown, looking }: WatchingOptions) {
    this.#runtime = runtime;
    this.#looking = looking;
    this.#periodMs = periodMs;
    this.#intervalMs = periodMs;
    this.#shown = shown;
  }

  get watchers(): number {
    return this.#subscriptions.size;
  }

  get bytesCopied(): number {
    return this.#bytesCopiedBefore + (this.#damage?.bytesCopied ?? 0);
  }

  watch(watcher: Watcher): Watch {
    const subscription: Subscription = { watcher, seen: undefined };
    this.#subscriptions.add(subscription);
    return {
      request: (seen) => {
        if (!this.#subscriptions.has(subscription)) return;
        subscription.seen = seen;
        this.#lookWhenDue();
      },
      [Symbol.dispose]: () => {
        this.#subscriptions.delete(subscription);
        if (this.#subscriptions.size === 0) this.#forget();
        else this.#arm();
      },
    };
  }

  /** Another picture (or none) is shown now; `flipped` when the guest asked for it by a flip. */
  switched({ flipped }: { flipped: boolean }): void {
    this.#switched = true;
    if (flipped) this.#flippedAtMs = this.#runtime.nowMs();
    this.#lookWhenDue();
  }

  /** Something is about to change (a key was pressed): look at the full rate again. */
  stir(): void {
    this.#stirredUntilMs = this.#runtime.nowMs() + STIRRED_MS;
    this.#intervalMs = this.#periodMs;
    this.#arm();
  }

  close(): void {
    const subscriptions = [...this.#subscriptions];
    this.#subscriptions.clear();
    this.#forget();
    for (const { watcher } of subscriptions) watcher.onClosed();
  }

  get #waiting(): boolean {
    for (const { seen } of this.#subscriptions) if (seen !== undefined) return true;
    return false;
  }

  #forget(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#queued?.[Symbol.dispose]();
    this.#queued = undefined;
    this.#bytesCopiedBefore = this.bytesCopied;
    this.#damage = undefined;
    this.#lookedAtMs = Number.NEGATIVE_INFINITY;
    this.#switched = true;
  }

  /** When to look next; half a period is the least, however often the guest switches pictures. */
  #dueMs(): number {
    const restedAtMs = this.#lookedAtMs + this.#lookTookMs / LOOKING_SHARE;
    if (this.#switched) return Math.max(restedAtMs, this.#lookedAtMs + this.#periodMs / 2);
    const dueMs = Math.max(this.#lookedAtMs + this.#intervalMs, this.#flippedAtMs + AFTER_FLIP_MS);
    return Math.max(restedAtMs, dueMs);
  }

  #lookWhenDue(): void {
    if (!this.#waiting || this.#queued !== undefined) return;
    if (this.#runtime.nowMs() >= this.#dueMs()) this.#queued = this.#looking.ask(this.#lookNow);
    this.#tell();
    this.#arm();
  }

  readonly #lookNow = (): void => {
    const queued = this.#queued !== undefined;
    this.#queued = undefined;
    this.#look();
    if (!queued) return;
    this.#tell();
    this.#arm();
  };

  #look(): void {
    this.#damage ??= new DamageTracker();
    this.#lookedAtMs = this.#runtime.nowMs();
    this.#switched = false;
    if (this.#damage.compare(this.#shown())) {
      this.#changedAtMs = this.#lookedAtMs;
      this.#intervalMs = this.#periodMs;
    } else if (this.#lookedAtMs >= this.#stirredUntilMs) {
      this.#intervalMs = Math.min(this.#intervalMs * SLOWING, STILL_INTERVAL_MS);
    }
    this.#lookTookMs = this.#runtime.nowMs() - this.#lookedAtMs;
  }

  #tell(): void {
    const damage = this.#damage;
    if (!damage) return;
    for (const subscription of this.#subscriptions) {
      if (subscription.seen === undefined || damage.generation <= subscription.seen) continue;
      subscription.seen = undefined;
      subscription.watcher.onDamage(damage, this.#changedAtMs);
    }
  }

  /** Sets the timer for the next look, or none when nobody waits or nothing is shown. */
  #arm(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (!this.#waiting || this.#queued !== undefined) return;
    if (!this.#switched && !this.#shown()) return;
    const delayMs = Math.max(0, this.#dueMs() - this.#runtime.nowMs());
    this.#timer = this.#runtime.after(delayMs, () => {
      this.#timer = undefined;
      this.#lookWhenDue();
    });
  }
}
