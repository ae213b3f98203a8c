// One viewer's window onto one screen: asks the screen for changes, packs them, sends them, and waits for
// the viewer's word that they were drawn before it asks again.
//
// Invariants: at most one update is under way, so a slow viewer gets fewer frames and never a queue; what a
// viewer misses meanwhile comes with the next update; a word for an update that is not under way is ignored.

import type { Runtime } from '../../runtime/runtime.ts';
import type { DamageTracker } from '../damage.ts';
import type { Screen } from '../screen.ts';
import type { Watch } from '../watching.ts';
import { UpdatePacker } from './packer.ts';

/** Slower than this, compressing is worth its time (8 MB/s: a 1080p frame takes a second). */
const SLOW_BYTES_PER_MS = 8 * 1024;

/** Updates smaller than this say little about the link. */
const TELLING_BYTES = 256 * 1024;

/** So many slow updates in a row, and the link counts as slow: one may be a hiccup of the page. */
const SLOW_UPDATES = 3;

export interface ViewerTransport {
  /** Whether the link is as fast as memory to begin with (the peer is on this machine). */
  readonly local: boolean;
  /** Sends one message; resolves when the system has taken it. Rejects when the link is gone. */
  send(message: Uint8Array): Promise<void>;
  /** The update could not be made or sent; the viewer is of no more use. */
  fail(reason: unknown): void;
}

interface UnderWay {
  readonly frame: number;
  readonly changedAtMs: number;
  sentAtMs: number;
  bytes: number;
}

export class ScreenViewer implements Disposable {
  readonly screen: Screen;
  readonly #runtime: Runtime;
  readonly #transport: ViewerTransport;
  readonly #watch: Watch;
  readonly #packer = new UpdatePacker();
  #open = true;
  #seen = 0;
  #frame = 0;
  #underWay: UnderWay | undefined;
  #compress: boolean;
  #slowUpdates = 0;

  constructor(
    runtime: Runtime,
    {
      screen,
      transport,
      onClosed,
    }: { screen: Screen; transport: ViewerTransport; onClosed: () => void },
  ) {
    this.screen = screen;
    this.#runtime = runtime;
    this.#transport = transport;
    this.#compress = !transport.local;
    this.#watch = screen.watch({
      onDamage: (damage, changedAtMs) => {
        this.#update(damage, changedAtMs).catch((error) => transport.fail(error));
      },
      onClosed: () => {
        this.#open = false;
        onClosed();
      },
    });
    this.#watch.request(0);
  }

  /** The viewer has drawn update `frame`. */
  drawn(frame: number): void {
    const done = this.#underWay;
    if (!done || done.frame !== frame) return;
    this.#underWay = undefined;
    const nowMs = this.#runtime.nowMs();
    this.#judgeLink(done.bytes, nowMs - done.sentAtMs);
    // The first update is a whole picture to a page that is being set up: no measure of a change.
    if (frame > 1) this.screen.noteViewLatency(nowMs - done.changedAtMs);
    this.#watch.request(this.#seen);
  }

  [Symbol.dispose](): void {
    this.#open = false;
    this.#watch[Symbol.dispose]();
  }

  async #update(damage: DamageTracker, changedAtMs: number): Promise<void> {
    const frame = ++this.#frame;
    const packing = this.#packer.pack(damage, {
      domid: this.screen.info.domid,
      connector: this.screen.info.index,
      frame,
      seen: this.#seen,
      compress: this.#compress,
    });
    this.#seen = damage.generation;
    const message = await packing;
    if (!this.#open) return;
    const sentAtMs = this.#runtime.nowMs();
    this.#underWay = { frame, changedAtMs, sentAtMs, bytes: message.length };
    await this.#transport.send(message);
  }

  /** A tunnel ends on this machine too: a link that turns out slow is compressed for from then on. */
  #judgeLink(bytes: number, durationMs: number): void {
    if (this.#compress || bytes < TELLING_BYTES) return;
    const slow = bytes < SLOW_BYTES_PER_MS * durationMs;
    this.#slowUpdates = slow ? this.#slowUpdates + 1 : 0;
    this.#compress = this.#slowUpdates >= SLOW_UPDATES;
  }
}
