// What one connector of a guest shows now: the place from which viewers and images read.
//
// Flips are paced to a refresh rate. Whoever reads the picture does so synchronously, between two turns
// of the event loop, so the moment after a refresh nothing reads the old picture and the flip is complete.
// Invariants: at most one flip is pending (a newer one completes the older at once, so a guest that floods
// us with flips costs one slot); a picture is never touched after it was retired or replaced; while nobody
// watches, the pixels are not touched at all.

import assert from 'node:assert/strict';
import type { ConnectorInfo, OutputConnector, Picture } from '../display/output.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { LookingTime } from './looking-time.ts';
import { Vblank } from './vblank.ts';
import { type Watch, type Watcher, Watching } from './watching.ts';

/** Refreshes a second, unless told otherwise. */
export const DEFAULT_REFRESH_HZ = 60;

interface PendingFlip {
  readonly picture: Picture;
  readonly onFlipped: () => void;
}

export interface ScreenOptions {
  readonly refreshHz?: number;
  /** Shared between the screens of an output. */
  readonly looking?: LookingTime;
  /** Called once, when the screen has been disposed. */
  readonly onClosed?: () => void;
}

export class Screen implements OutputConnector {
  readonly info: ConnectorInfo;
  readonly path = 'browser';
  readonly #vblank: Vblank;
  readonly #watching: Watching;
  readonly #onClosed: (() => void) | undefined;
  #shown: Picture | undefined;
  #pending: PendingFlip | undefined;
  #closed = false;
  #viewLatencyMs: number | undefined;
  #bytesRead = 0;

  constructor(runtime: Runtime, info: ConnectorInfo, options: ScreenOptions = {}) {
    this.info = info;
    this.#onClosed = options.onClosed;
    this.#vblank = new Vblank(runtime, {
      refreshHz: options.refreshHz ?? DEFAULT_REFRESH_HZ,
      onRefresh: () => this.#refresh(),
    });
    this.#watching = new Watching(runtime, {
      periodMs: this.#vblank.periodMs,
      shown: () => this.#shown,
      looking: options.looking ?? new LookingTime(runtime),
    });
  }

  /** The picture to read now, synchronously; undefined while the screen is blank. */
  get shown(): Picture | undefined {
    return this.#shown;
  }

  /** From seeing the last change to a viewer's word that it was drawn; undefined while nobody watches. */
  get viewLatencyMs(): number | undefined {
    return this.viewers > 0 ? this.#viewLatencyMs : undefined;
  }

  get viewers(): number {
    return this.#watching.watchers;
  }

  get bytesCopied(): number {
    return this.#watching.bytesCopied + this.#bytesRead;
  }

  show(picture: Picture | undefined): void {
    assert(!this.#closed, 'show on a closed screen');
    this.#completePending();
    this.#vblank.cancel();
    this.#switchTo(picture, { flipped: false });
  }

  flip(picture: Picture, onFlipped: () => void): void {
    assert(!this.#closed, 'flip on a closed screen');
    this.#completePending();
    this.#pending = { picture, onFlipped };
    this.#vblank.schedule();
  }

  /** Shows `picture`, which hardware has put on a monitor: that paces the flips, and not this screen. */
  present(picture: Picture): void {
    assert(!this.#closed, 'present on a closed screen');
    this.#completePending();
    this.#vblank.cancel();
    this.#switchTo(picture, { flipped: true });
  }

  async retire(picture: Picture): Promise<void> {
    if (this.#closed) return;
    if (this.#pending?.picture === picture) {
      this.#vblank.cancel();
      this.#completePending();
    }
    if (this.#shown === picture) this.#switchTo(undefined, { flipped: false });
  }

  /** Watches the picture: the watcher is told of changes as it asks for them. */
  watch(watcher: Watcher): Watch {
    assert(!this.#closed, 'watch of a closed screen');
    return this.#watching.watch(watcher);
  }

  /** Something is about to change (input was sent to the guest): look closely for a moment. */
  stir(): void {
    this.#watching.stir();
  }

  /** Enters bytes that an output made out of this picture, for `bytesCopied`. */
  countCopied(bytes: number): void {
    this.#bytesRead += bytes;
  }

  /** Enters how long a change took until a viewer had drawn it. */
  noteViewLatency(latencyMs: number): void {
    this.#viewLatencyMs = latencyMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#vblank.cancel();
    this.#pending = undefined;
    this.#shown = undefined;
    this.#watching.close();
    this.#onClosed?.();
  }

  #refresh(): void {
    const pending = this.#pending;
    assert(pending, 'a refresh without a flip');
    this.#switchTo(pending.picture, { flipped: true });
    this.#completePending();
  }

  #switchTo(picture: Picture | undefined, { flipped }: { flipped: boolean }): void {
    this.#shown = picture;
    this.#watching.switched({ flipped });
  }

  #completePending(): void {
    const pending = this.#pending;
    if (!pending) return;
    this.#pending = undefined;
    pending.onFlipped();
  }
}
