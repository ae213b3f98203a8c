// Keyboard and pointer on a guest's screen, while it has the focus, as events for the guest.
//
// Invariants: nothing is sent without the focus; when the focus goes, everything held down is released; a
// held key goes down again as often as the browser repeats it (xen-kbdfront repeats nothing by itself);
// Ctrl+Alt+G always gives the keyboard back to the page. Moves are sent once per animation frame, the last position only.

import { evdevCode } from '../src/outputs/browser/key-codes.ts';
import type { InputEvent } from '../src/outputs/browser/protocol.ts';

/** evdev codes of the buttons, by DOM number: left, middle, right, back, forward. */
const BUTTONS = [0x110, 0x112, 0x111, 0x113, 0x114] as const;

/** Wheel travel of one detent, by unit (WheelEvent.deltaMode): pixels, lines, pages. */
const DETENT = [100, 3, 1] as const;

export interface GuestConnection {
  /** Size of the guest's absolute pointer area. */
  readonly area: () => { readonly width: number; readonly height: number };
  send(events: readonly InputEvent[]): void;
  release(): void;
}

export class GuestControls {
  readonly #element: HTMLElement;
  readonly #guest: GuestConnection;
  readonly #keys = new Map<string, number>();
  #queue: InputEvent[] = [];
  #frame: number | undefined;
  #wheelTravel = 0;

  /** Listens on `element`, which must be able to have the focus and have the picture's shape. */
  constructor(element: HTMLElement, guest: GuestConnection) {
    this.#element = element;
    this.#guest = guest;
    element.addEventListener('keydown', (event) => this.#keyDown(event));
    element.addEventListener('keyup', (event) => this.#keyUp(event));
    element.addEventListener('blur', () => this.#release());
    element.addEventListener('pointerdown', (event) => this.#pointerDown(event));
    element.addEventListener('pointermove', (event) => this.#pointerMove(event));
    element.addEventListener('pointerup', (event) => this.#pointerUp(event));
    element.addEventListener('pointercancel', () => this.#release());
    element.addEventListener('wheel', (event) => this.#wheel(event), { passive: false });
    element.addEventListener('contextmenu', (event) => event.preventDefault());
  }

  get #focused(): boolean {
    return document.activeElement === this.#element;
  }

  #keyDown(event: KeyboardEvent): void {
    if (leaves(event)) {
      event.preventDefault();
      this.#element.blur();
      return;
    }
    const code = evdevCode(event.code);
    if (code === undefined) return;
    event.preventDefault();
    this.#keys.set(event.code, code);
    this.#send({ type: 'key', code, pressed: true });
  }

  #keyUp(event: KeyboardEvent): void {
    event.preventDefault();
    // On macOS no key says that it went up while Meta was held, so with Meta everything goes up.
    const codes = event.key === 'Meta' ? [...this.#keys.keys()] : [event.code];
    for (const name of codes) {
      const code = this.#keys.get(name);
      if (code === undefined) continue;
      this.#keys.delete(name);
      this.#send({ type: 'key', code, pressed: false });
    }
  }

  #pointerDown(event: PointerEvent): void {
    const code = BUTTONS[event.button];
    if (code === undefined) return;
    this.#element.focus({ preventScroll: true });
    this.#element.setPointerCapture(event.pointerId);
    this.#send(this.#positionOf(event), { type: 'key', code, pressed: true });
  }

  #pointerMove(event: PointerEvent): void {
    if (!this.#focused) return;
    if (event.button >= 0) {
      // A further button of a mouse whose first is held arrives as a move.
      const code = BUTTONS[event.button];
      const pressed = (event.buttons & buttonBit(event.button)) !== 0;
      if (code !== undefined) this.#send(this.#positionOf(event), { type: 'key', code, pressed });
      return;
    }
    this.#queueMove(this.#positionOf(event));
  }

  #pointerUp(event: PointerEvent): void {
    const code = BUTTONS[event.button];
    if (code === undefined || !this.#focused) return;
    this.#send(this.#positionOf(event), { type: 'key', code, pressed: false });
  }

  #wheel(event: WheelEvent): void {
    if (!this.#focused) return;
    event.preventDefault();
    this.#wheelTravel -= event.deltaY / DETENT[event.deltaMode as 0 | 1 | 2];
    const delta = Math.trunc(this.#wheelTravel);
    if (delta === 0) return;
    this.#wheelTravel -= delta;
    this.#send({ type: 'wheel', delta });
  }

  /** The guest's pixel under the pointer, the nearest one when it is outside. */
  #positionOf({ clientX, clientY }: PointerEvent): InputEvent {
    const box = this.#element.getBoundingClientRect();
    const { width, height } = this.#guest.area();
    return {
      type: 'position',
      x: scaled(clientX - box.left, box.width, width),
      y: scaled(clientY - box.top, box.height, height),
    };
  }

  #queueMove(move: InputEvent): void {
    this.#queue = [move];
    this.#frame ??= requestAnimationFrame(() => this.#send());
  }

  /** Sends the last move, if one waits, and then `events`. */
  #send(...events: readonly InputEvent[]): void {
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame);
    this.#frame = undefined;
    const all = [...this.#queue, ...events];
    this.#queue = [];
    if (all.length > 0) this.#guest.send(all);
  }

  #release(): void {
    this.#keys.clear();
    this.#queue = [];
    this.#wheelTravel = 0;
    this.#guest.release();
  }
}

/** Whether this is Ctrl+Alt+G; AltGr, which some systems report as Ctrl and Alt, is not. */
function leaves(event: KeyboardEvent): boolean {
  const altGr = event.getModifierState('AltGraph');
  return event.code === 'KeyG' && event.ctrlKey && event.altKey && !altGr;
}

/** The bit of PointerEvent.buttons for a PointerEvent.button; middle and right are swapped. */
function buttonBit(button: number): number {
  return [1, 4, 2, 8, 16][button] ?? 0;
}

/** `offset` of `length` on a scale of `size` whole steps, kept inside. */
function scaled(offset: number, length: number, size: number): number {
  const step = Math.floor((offset / length) * size);
  return Math.min(Math.max(step, 0), Math.max(size - 1, 0));
}
