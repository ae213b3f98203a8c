// The guest that pays for nothing: its display flips at every refresh to a picture that nobody else draws, and
// every flip is answered from outside by a key. It notices when the screen shows anything but its own picture,
// when a flip fails or comes late, and when a key is lost, doubled or out of order.

import assert from 'node:assert/strict';
import type { Daemon } from '../../src/daemon/daemon.ts';
import { DisplayFrontend } from '../../src/display/frontend.ts';
import type { GuestDisplay, GuestFramebuffer } from '../../src/display/guest-display.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { KeyboardFrontend } from '../../src/input/frontend.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';

export const HONEST_SIZE = { width: 64, height: 48 };
/** In every pixel that it draws, above the number of the frame. */
const SIGNATURE = 0x5a00_0000;
/** KEY_A of linux/input-event-codes.h. */
const KEY = 30;
/** Longest time from one flip to the next, in milliseconds: two refreshes of 60 Hz and what it takes to ask. */
const LONGEST_GAP_MS = 40;

export interface HonestParts {
  readonly runtime: Runtime;
  readonly daemon: Daemon;
  readonly guest: Guest;
  readonly domain: GuestDomain;
}

export class HonestGuest {
  readonly guest: Guest;
  flips = 0;
  readonly #parts: HonestParts;
  readonly #framebuffers: GuestFramebuffer[] = [];
  #frontends: AsyncDisposable[] = [];
  #display: GuestDisplay | undefined;
  #keyboard = false;
  #keysSent = 0;
  #keysSeen = 0;
  #flippedAtMs = 0;
  #trouble: Error | undefined;
  #stopping = false;

  constructor(parts: HonestParts) {
    this.guest = parts.guest;
    this.#parts = parts;
  }

  /** Both devices are connected. */
  get connected(): boolean {
    return this.#display !== undefined && this.#keyboard;
  }

  /** The cookies that it uses, which another guest may guess. */
  get cookies(): readonly GuestFramebuffer[] {
    return this.#framebuffers;
  }

  async open(): Promise<void> {
    const { runtime, domain } = this.#parts;
    const onFailed = (error: Error) => this.#fail(error);
    this.#frontends = [
      await DisplayFrontend.open({
        runtime,
        domain,
        onFailed,
        onConnected: (display) => {
          this.#display = display;
        },
      }),
      await KeyboardFrontend.open({
        runtime,
        domain,
        onFailed,
        onConnected: () => {
          this.#keyboard = true;
        },
        handlers: { key: (code, pressed) => this.#onKey(code, pressed) },
      }),
    ];
  }

  /** Two buffers, the first of them shown, and flips from then on. */
  async begin(): Promise<void> {
    const display = this.#display!;
    for (const _ of [0, 1]) {
      const buffer = await display.createBuffer({ ...HONEST_SIZE, format: XRGB8888 });
      this.#framebuffers.push(await display.attach(buffer));
    }
    await display.setMode(0, this.#framebuffers[0]);
    this.#flippedAtMs = this.#parts.runtime.nowMs();
    this.#flip();
  }

  /** @throws what it has noticed */
  check(): void {
    if (this.#trouble) throw this.#trouble;
  }

  /** Whether every key that was sent has arrived. */
  get hasEveryKey(): boolean {
    return this.#keysSeen === this.#keysSent;
  }

  async close(): Promise<void> {
    this.#stopping = true;
    for (const frontend of this.#frontends) await frontend[Symbol.asyncDispose]();
  }

  #flip(): void {
    const next = this.#framebuffers[this.flips % 2]!;
    wordsOf(next.buffer.bytes).fill(SIGNATURE | this.flips);
    this.#display!.flip(0, next, (error) => this.#onFlipped(error));
  }

  #onFlipped(error: Error | undefined): void {
    if (this.#stopping || this.#trouble) return;
    try {
      if (error) throw error;
      const gapMs = this.#parts.runtime.nowMs() - this.#flippedAtMs;
      assert(gapMs <= LONGEST_GAP_MS, `flip ${this.flips} came after ${gapMs} ms`);
      this.#flippedAtMs += gapMs;
      this.#checkScreen();
      this.flips += 1;
      this.#sendKey();
      this.#flip();
    } catch (trouble) {
      this.#fail(trouble as Error);
    }
  }

  /** Every pixel on the screen is of the frame that was flipped to. */
  #checkScreen(): void {
    const shown = this.#parts.daemon.screen(this.guest.domid, 0)?.shown;
    assert(shown, 'nothing is on the screen');
    const { width, height } = shown;
    assert.deepEqual({ width, height }, HONEST_SIZE);
    const foreign = wordsOf(shown.bytes).find((word) => word !== (SIGNATURE | this.flips));
    assert.equal(foreign, undefined, `a foreign pixel in frame ${this.flips}`);
  }

  #sendKey(): void {
    assert(this.#keysSent - this.#keysSeen <= 2, 'keys do not arrive');
    const input = this.#parts.daemon.input(this.guest.domid);
    assert.equal(input?.state, 'connected');
    input.key(KEY, this.#keysSent % 2 === 0);
    this.#keysSent += 1;
  }

  #onKey(code: number, pressed: boolean): void {
    if (this.#stopping) return;
    if (code !== KEY || pressed !== (this.#keysSeen % 2 === 0)) {
      this.#fail(new Error(`key ${code} ${pressed ? 'down' : 'up'} after ${this.#keysSeen} keys`));
    }
    this.#keysSeen += 1;
  }

  #fail(error: Error): void {
    this.#trouble ??= new Error(`the honest guest: ${error.message}`, { cause: error });
  }
}

function wordsOf(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}
