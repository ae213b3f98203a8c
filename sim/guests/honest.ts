// The life of a guest that keeps the rules: our own frontends, and a program that draws, flips, makes and
// destroys buffers, and takes input, through every failure and every restart of the backend.
//
// What it must get, and complains of when it does not: its own pictures on its screens, its own input, an answer to
// everything; pages of its back when the backend said so; and, once nothing goes wrong any more, frames.

import { DisplayFrontend } from '../../src/display/frontend.ts';
import type {
  GuestBuffer,
  GuestDisplay,
  GuestFramebuffer,
} from '../../src/display/guest-display.ts';
import { RGB565, XRGB8888 } from '../../src/display/pixel-format.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { KeyboardFrontend } from '../../src/input/frontend.ts';
import { BTN_LEFT } from '../../src/input/kbd-events.ts';
import { messageOf, ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import type { Random } from '../../src/runtime/random.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { type Domain, GrantMapError } from '../../src/xen/domain.ts';
import type { DomId } from '../../src/xen/ids.ts';
import { between, happens, oneOf, streamOf } from '../chance.ts';
import { lacking } from '../errors.ts';
import { Program } from '../program.ts';
import { programDomain } from '../program-domain.ts';
import { Sharer } from '../sharing/sharer.ts';
import type { Surroundings } from '../surroundings.ts';
import { FeltInput, type KeyRule } from './felt-input.ts';
import type { GuestLife } from './life.ts';
import { watchedDomain } from './watched-domain.ts';

/** Pause after a failure before the program tries again, in milliseconds. */
const AFTER_FAILURE_MS = [1, 500] as const;
/** Failures in a row after which the display is connected anew. */
const FAILURES_MAX = 5;
/** One in so many frames is followed by a new buffer, by the screen's being switched off and on, by a rest. */
const NEW_BUFFER_ONE_IN = 25;
const BLANK_ONE_IN = 60;
const REST_ONE_IN = 30;
const REST_MS = [1, 400] as const;
/** Marks the first pixel of a picture as drawn by a guest; its domid and a running number are in the rest. */
const MARK = 0x4000_0000;
const DOMID_MASK = 0x3fff;
/** What it draws in: words of 32 bits, whatever the pixels are. */
const FORMATS = [XRGB8888, XRGB8888, RGB565] as const;

/** A picture's first pixel. */
function markOf(domid: number, number: number): number {
  return MARK | ((domid & DOMID_MASK) << 16) | (number & 0xffff);
}

/** Whether a pixel may be on the screen of that domain: its own mark, or black. */
export function isMarkOf(domid: number, pixel: number): boolean {
  return pixel === 0 || (pixel & 0xffff_0000) === (markOf(domid, 0) & 0xffff_0000);
}

/** The key codes that a person presses on this guest's keyboard, and on no other's. */
export function keyCodes(domid: number): { first: number; count: number } {
  return { first: 1 + (domid % 32) * 8, count: 8 };
}

export interface HonestGuestParts {
  readonly guest: Guest;
  readonly keyboards: number;
  readonly shares: boolean;
}

/** The guest's own keys, and a finger that stands for the pointer, which is everybody's. */
function ownKeys(domid: DomId): KeyRule {
  const { first, count } = keyCodes(domid);
  return (code, pressed) => {
    const own = (code >= first && code < first + count) || code === BTN_LEFT;
    // A backend that takes up a keyboard releases all that the one before it may have left down.
    return own || !pressed;
  };
}

export class HonestGuest implements GuestLife {
  readonly honest = true;
  readonly guest: Guest;
  readonly sharer: Sharer | undefined;
  readonly #world: Surroundings;
  readonly #domain: GuestDomain;
  readonly #program: Program;
  readonly #watched: Domain;
  readonly #random: Random;
  readonly #input: FeltInput;
  /** Those that the display has now, whatever became of what they were made for. */
  readonly #buffers = new Set<GuestBuffer>();
  #display: GuestDisplay | undefined;
  #frontend: DisplayFrontend | undefined;
  /** Open ones, by their numbers. */
  readonly #keyboards = new Map<number, KeyboardFrontend>();
  readonly #keyboardCount: number;
  /** Has the display's frontend opened anew. */
  #giveUp: (reason: Error) => void = () => {};
  /** Pages of buffers whose grants were ended while the backend had them mapped. */
  #endedInUse = 0;
  #drawn = 0;
  #frames = 0;
  #stopping = false;

  constructor(world: Surroundings, { guest, keyboards, shares }: HonestGuestParts) {
    this.#world = world;
    this.guest = guest;
    this.#keyboardCount = keyboards;
    const { runtime, faults, trace } = world;
    this.#random = streamOf(world.seed, `honest ${guest.domid}`);
    const random = streamOf(world.seed, `program ${guest.domid}`);
    this.#program = new Program({ runtime, random, log: runtime.log });
    this.#domain = world.host.enter(guest, this.#program);
    world.oracle.trust(guest.domid);
    const { domid } = guest;
    this.#input = new FeltInput(world, { domid, mayCome: ownKeys(domid) });
    this.sharer = shares ? new Sharer(world, this.#domain) : undefined;
    const { store } = this.#domain;
    const parts = { runtime, program: this.#program, domain: this.#domain, store, faults, trace };
    this.#watched = watchedDomain(world, programDomain(parts), (inUse) => {
      this.#endedInUse += inUse;
    });
  }

  get frames(): number {
    return this.#frames;
  }

  get keysDown(): number {
    return this.#input.keysDown;
  }

  start(): void {
    this.sharer?.start();
    this.#inBackground(this.#keep((onFailed) => this.#openDisplay(onFailed)));
    for (let devid = 0; devid < this.#keyboardCount; devid++) {
      this.#inBackground(this.#keep((onFailed) => this.#openKeyboard(devid, onFailed)));
    }
  }

  /** Leaves in good order, as a guest that is shut down does. */
  async shutDown(): Promise<void> {
    this.#stopping = true;
    for (const keyboard of this.#keyboards.values()) await keyboard.close().catch(() => {});
    await this.#frontend?.close().catch(() => {});
    if (this.#alive) this.#world.host.hypervisor.shutdown(this.guest.domid, 'poweroff');
  }

  end(): void {
    this.sharer?.end();
    this.#program.kill();
  }

  get #alive(): boolean {
    return this.#program.alive && this.#world.runs(this.guest.domid);
  }

  async #openDisplay(onFailed: (reason: Error) => void): Promise<void> {
    this.#frontend = await DisplayFrontend.open({
      runtime: this.#program,
      domain: this.#watched,
      onConnected: (display) => this.#connected(display),
      onDisconnected: () => {
        this.#display = undefined;
      },
      onFailed,
    });
    this.#giveUp = onFailed;
  }

  async #openKeyboard(devid: number, onFailed: (reason: Error) => void): Promise<void> {
    const keyboard = await KeyboardFrontend.open({
      runtime: this.#program,
      domain: this.#watched,
      devid,
      handlers: this.#input.handlers,
      onFailed,
    });
    this.#keyboards.set(devid, keyboard);
  }

  /** Keeps a frontend open, whatever becomes of it. */
  async #keep(open: (onFailed: (reason: Error) => void) => Promise<void>): Promise<void> {
    while (this.#alive && !this.#stopping) {
      const before = this.#detachments;
      const failure = await new Promise((resolve) => open(resolve).catch(resolve));
      // It may have met what the toolstack was doing, and says so only when it has closed.
      const disturbed = failure instanceof ProtocolViolation && this.#detachments > before;
      if (!disturbed) this.#judge(failure);
      await this.#pause();
    }
  }

  #connected(display: GuestDisplay): void {
    this.#display = display;
    this.#inBackground(this.#play(display));
  }

  async #play(display: GuestDisplay): Promise<void> {
    for (let failures = 0; this.#display === display && !this.#stopping; failures++) {
      // What the backend made after we had given up waiting is ours to destroy, and we do not know its name.
      if (failures === FAILURES_MAX) return this.#reconnect();
      const shown: GuestFramebuffer[][] = [];
      this.#buffers.clear();
      try {
        for (const { index } of display.connectors)
          shown.push(await this.#switchOn(display, index));
        while (this.#display === display && !this.#stopping) {
          await this.#frame(display, shown);
          failures = 0;
        }
      } catch (error) {
        this.#judge(error);
      }
      if (this.#display !== display) return;
      for (const buffer of this.#buffers) await display.destroyBuffer(buffer).catch(() => {});
      await this.#pause();
    }
  }

  async #reconnect(): Promise<void> {
    await this.#frontend?.close().catch((error: unknown) => this.#judge(error));
    this.#giveUp(lacking('the display', 'ETIMEDOUT'));
  }

  async #switchOn(display: GuestDisplay, index: number): Promise<GuestFramebuffer[]> {
    const both = [await this.#framebuffer(display, index), await this.#framebuffer(display, index)];
    await display.setMode(index, both[0]);
    return both;
  }

  async #framebuffer(display: GuestDisplay, index: number): Promise<GuestFramebuffer> {
    const { width, height } = display.connectors[index]!;
    const buffer = await display.createBuffer({
      width,
      height,
      format: oneOf(this.#random, FORMATS),
    });
    this.#buffers.add(buffer);
    this.#draw(buffer.bytes);
    return display.attach(buffer);
  }

  /** Draws something that nobody else has drawn. @returns its first pixel */
  #draw(bytes: Uint8Array): number {
    const mark = markOf(this.guest.domid, ++this.#drawn);
    new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4).fill(mark);
    return mark;
  }

  /** A frame on every connector, and now and then something else. */
  async #frame(display: GuestDisplay, shown: GuestFramebuffer[][]): Promise<void> {
    await Promise.all(shown.map((both, index) => this.#flip(display, index, both)));
    this.#frames += 1;
    const index = this.#random.below(shown.length);
    if (happens(this.#random, NEW_BUFFER_ONE_IN))
      await this.#replace(display, index, shown[index]!);
    if (happens(this.#random, BLANK_ONE_IN)) {
      await display.setMode(index, undefined);
      await display.setMode(index, shown[index]![0]);
    }
    if (happens(this.#random, REST_ONE_IN)) {
      await sleep(this.#program, between(this.#random, ...REST_MS));
    }
  }

  async #flip(display: GuestDisplay, index: number, both: GuestFramebuffer[]): Promise<void> {
    const next = both.pop()!;
    both.unshift(next);
    const mark = this.#draw(next.buffer.bytes);
    await display.flipped(index, next);
    const pixel = this.#world.shownPixel(this.guest.domid, index);
    if (pixel === undefined || this.#display !== display) return;
    this.#world.findings.hold(pixel === mark, 'foreign-picture', () => {
      const words = `${pixel.toString(16)} in place of ${mark.toString(16)}`;
      return `domain ${this.guest.domid}, connector ${index}: ${words}`;
    });
  }

  /** A new buffer in place of the one that is not shown. */
  async #replace(display: GuestDisplay, index: number, both: GuestFramebuffer[]): Promise<void> {
    const old = both.pop()!;
    both.push(await this.#framebuffer(display, index));
    if (happens(this.#random, 2)) await display.detach(old);
    const before = this.#endedInUse;
    this.#buffers.delete(old.buffer);
    await display.destroyBuffer(old.buffer);
    // A creation that took too long may have mapped what its references mean by now; it is listed as such.
    if (this.#display !== display || this.#world.quarantined(this.guest.domid)) return;
    const still = this.#endedInUse - before;
    this.#world.findings.hold(still === 0, 'release-is-a-fact', () => {
      return `domain ${this.guest.domid}: ${still} pages of a destroyed buffer are still mapped`;
    });
  }

  /** Failures of the system are met with patience; anything else is a defect of somebody's. */
  #judge(error: unknown): void {
    if (error instanceof AggregateError) {
      for (const each of error.errors) this.#judge(each);
      return;
    }
    if (error instanceof SysError || error instanceof GrantMapError) return;
    // The toolstack takes the nodes of a guest, or of a device, away while its program still runs.
    if (error instanceof ProtocolViolation && !this.#served) return;
    this.#world.findings.hold(false, 'defect', () => {
      return `the frontend of domain ${this.guest.domid}: ${messageOf(error)}`;
    });
  }

  get #detachments(): number {
    return this.#world.detachments.get(this.guest.domid) ?? 0;
  }

  get #served(): boolean {
    if (this.#world.detached.has(this.guest.domid)) return false;
    return this.#alive && this.#world.host.guests.includes(this.guest);
  }

  #pause(): Promise<void> {
    return sleep(this.#program, between(this.#random, ...AFTER_FAILURE_MS));
  }

  #inBackground(work: Promise<void>): void {
    work.catch((error: unknown) => this.#judge(error));
  }
}
