// A guest's keyboard, pointer and touch screen, as those who have a person's hands on them see it: what goes in
// is turned into what this frontend asked for.
//
// Invariants: an event is sent only while the frontend is connected; what is down is known exactly, so that
// nothing stays down when a viewer, the focus or the connection goes; only codes up to KEY_MAX and positions
// inside the area leave here, because Linux looks beyond its tables for others.
//
// A frontend has an absolute or a relative pointer, never both (Linux drops the other kind), so positions
// become movements for the one and movements positions for the other; without a touch screen, the first
// finger is the pointer with its left button.

import type { EventQueue } from './event-queue.ts';
import type { GuestInput, Touch } from './guest-input.ts';
import type { KbdConnection } from './kbd-connection.ts';
import {
  BTN_LEFT,
  FIRST_BUTTON,
  isPointerButton,
  type KbdEvent,
  KEY_MAX,
  RAW_POSITION_MAX,
} from './kbd-events.ts';

export interface Area {
  readonly width: number;
  readonly height: number;
}

/** What the backend offers, from its own nodes. */
export interface InputOffer {
  /** Whether there is a keyboard, and a pointer; a Linux frontend without one crashes when told of its keys. */
  readonly keyboard: boolean;
  readonly pointer: boolean;
  /** Of the absolute pointer. */
  readonly area: Area;
  /** Of the touch screen; undefined when none is offered. */
  readonly touch: { readonly area: Area; readonly contacts: number } | undefined;
}

/** What the frontend asked for, out of what is offered. */
export interface InputWishes {
  readonly absolute: boolean;
  /** Positions from 0 to RAW_POSITION_MAX instead of pixels; only together with `absolute`. */
  readonly raw: boolean;
  readonly multiTouch: boolean;
}

const NO_WISHES: InputWishes = { absolute: false, raw: false, multiTouch: false };
const RAW_AREA: Area = { width: RAW_POSITION_MAX + 1, height: RAW_POSITION_MAX + 1 };
/** Largest step that fits the protocol's fields. */
const STEP_MAX = 0x7fff_ffff;

function clamp(value: number, max: number): number {
  return Math.max(0, Math.min(Math.round(value), max));
}

function step(value: number): number {
  return Math.max(-STEP_MAX, Math.min(Math.round(value), STEP_MAX));
}

export class KeyboardInput implements GuestInput {
  /** Events that had to be dropped: nobody was connected, they were out of range, or the guest too slow. */
  dropped = 0;
  offer: InputOffer;
  readonly #onChange: () => void;
  #wishes = NO_WISHES;
  #connection: KbdConnection | undefined;
  #closed = false;
  readonly #pressed = new Set<number>();
  readonly #contacts = new Set<number>();
  /** The contact that stands for the pointer where there is no touch screen. */
  #finger: number | undefined;
  #pointer: { readonly x: number; readonly y: number } | undefined;

  constructor(offer: InputOffer, onChange: () => void) {
    this.offer = offer;
    this.#onChange = onChange;
  }

  get state(): GuestInput['state'] {
    if (this.#closed) return 'closed';
    return this.#connection ? 'connected' : 'waiting';
  }

  get area(): Area {
    return this.#wishes.raw ? RAW_AREA : this.offer.area;
  }

  /** Whether there is a place for this key or button. */
  takesKey(code: number): boolean {
    return isPointerButton(code) ? this.offer.pointer : this.offer.keyboard;
  }

  get takesPointer(): boolean {
    return this.offer.pointer;
  }

  /** Whether touches are touches here; elsewhere the first finger is the pointer. */
  get takesTouch(): boolean {
    return this.#wishes.multiTouch && this.offer.touch !== undefined;
  }

  holdsKey(code: number): boolean {
    return this.#pressed.has(code);
  }

  holdsContact(contact: number): boolean {
    return this.#contacts.has(contact) || this.#finger === contact;
  }

  /** Events go to `connection` from now on. */
  connect(connection: KbdConnection, wishes: InputWishes): void {
    this.#connection = connection;
    this.#wishes = wishes;
    this.#pointer = undefined;
    this.#onChange();
  }

  /** Releases what is down, sends that if the guest has room, and forgets the connection. */
  disconnect(): void {
    this.releaseAll();
    this.#connection?.flush();
    this.#connection?.end();
    this.#connection = undefined;
    this.#onChange();
  }

  /** The device is gone for good. */
  close(): void {
    this.#closed = true;
    this.#onChange();
  }

  key(code: number, pressed: boolean): void {
    if (!Number.isInteger(code) || code < 1 || code > KEY_MAX) this.#count(false);
    else if (!pressed) this.#release(code);
    else if (!this.takesKey(code)) this.#count(false);
    else if (!this.#pressed.has(code)) this.#press(code);
    else if (code < FIRST_BUTTON) {
      this.#send((queue) => queue.tryRepeat({ kind: 'key', code, pressed }));
    }
  }

  motion(dx: number, dy: number): void {
    if (!Number.isFinite(dx) || !Number.isFinite(dy)) this.#count(false);
    else if (this.#wishes.absolute) {
      const { width, height } = this.area;
      const { x, y } = this.#pointer ?? { x: width / 2, y: height / 2 };
      this.position(x + dx, y + dy);
    } else {
      this.#move({ kind: 'motion', dx: step(dx), dy: step(dy), wheel: 0 });
    }
  }

  position(x: number, y: number): void {
    if (!Number.isFinite(x) || !Number.isFinite(y)) {
      this.#count(false);
      return;
    }
    const { width, height } = this.area;
    const before = this.#pointer;
    const now = { x: clamp(x, width - 1), y: clamp(y, height - 1) };
    this.#pointer = now;
    if (this.#wishes.absolute) this.#move({ kind: 'position', ...now, wheel: 0 });
    else if (before) this.motion(now.x - before.x, now.y - before.y);
  }

  wheel(delta: number): void {
    if (!Number.isFinite(delta)) this.#count(false);
    // Without a movement, so that the pointer stays where it is, wherever that may be.
    else this.#move({ kind: 'motion', dx: 0, dy: 0, wheel: step(delta) });
  }

  touch(touch: Touch): void {
    const { contact, phase, x, y } = touch;
    const { offer } = this;
    if (!Number.isInteger(contact) || !Number.isFinite(x) || !Number.isFinite(y)) {
      this.#count(false);
    } else if (!offer.touch || !this.takesTouch) this.#pointWith(touch);
    else if (contact < 0 || contact >= offer.touch.contacts) this.#count(false);
    else if (phase === 'up') this.#lift(contact);
    else this.#touch(contact, this.#onTouchScreen(touch, offer.touch.area));
  }

  releaseAll(): void {
    for (const code of [...this.#pressed]) this.#release(code);
    for (const contact of [...this.#contacts]) this.#lift(contact);
    this.#finger = undefined;
  }

  #press(code: number): void {
    const down: KbdEvent = { kind: 'key', code, pressed: true };
    if (this.#send((queue) => queue.tryBegin([down]))) this.#pressed.add(code);
  }

  #release(code: number): void {
    if (!this.#pressed.delete(code)) return;
    this.#send((queue) => {
      queue.end([{ kind: 'key', code, pressed: false }]);
      return true;
    });
  }

  #touch(contact: number, place: { x: number; y: number }): void {
    const sync: KbdEvent = { kind: 'sync', contact };
    if (this.#contacts.has(contact)) {
      this.#send((queue) => queue.tryMoveContact({ kind: 'move', contact, ...place }, sync));
    } else if (this.#send((queue) => queue.tryBegin([{ kind: 'down', contact, ...place }, sync]))) {
      this.#contacts.add(contact);
    }
  }

  #lift(contact: number): void {
    if (!this.#contacts.delete(contact)) return;
    this.#send((queue) => {
      queue.end([
        { kind: 'up', contact },
        { kind: 'sync', contact },
      ]);
      return true;
    });
  }

  /** The first finger moves the pointer and holds its left button; others do nothing. */
  #pointWith({ contact, phase, x, y }: Touch): void {
    if (phase === 'down') this.#finger ??= contact;
    if (this.#finger !== contact) return;
    this.position(x, y);
    if (phase === 'down') this.key(BTN_LEFT, true);
    if (phase !== 'up') return;
    this.key(BTN_LEFT, false);
    this.#finger = undefined;
  }

  #onTouchScreen({ x, y }: Touch, touch: Area): { x: number; y: number } {
    const { width, height } = this.area;
    return {
      x: clamp(Math.floor((x * touch.width) / width), touch.width - 1),
      y: clamp(Math.floor((y * touch.height) / height), touch.height - 1),
    };
  }

  #move(event: KbdEvent): void {
    if (this.offer.pointer) this.#send((queue) => queue.tryMove(event));
    else this.#count(false);
  }

  #send(put: (queue: EventQueue) => boolean): boolean {
    const accepted = this.#connection?.enqueue(put) ?? false;
    this.#count(accepted);
    return accepted;
  }

  #count(accepted: boolean): void {
    if (!accepted) this.dropped += 1;
  }
}
