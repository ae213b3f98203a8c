// One viewer's hands on one guest: passes its events on and knows what it holds down, so that exactly that
// is released when the viewer's focus leaves the guest or the viewer is gone. What another viewer of the same
// guest holds stays down.

import type { GuestInput, Touch } from '../input/guest-input.ts';
import type { InputEvent } from '../outputs/browser/protocol.ts';

/** Whether a position lies in the guest's pointer area; other events have none. */
export function insideArea(event: InputEvent, area: GuestInput['area']): boolean {
  if (event.type !== 'position' && event.type !== 'touch') return true;
  return event.x < area.width && event.y < area.height;
}

/** Sends one event to the guest. */
export function sendInput(input: GuestInput, event: InputEvent): void {
  switch (event.type) {
    case 'key':
      input.key(event.code, event.pressed);
      break;
    case 'motion':
      input.motion(event.dx, event.dy);
      break;
    case 'position':
      input.position(event.x, event.y);
      break;
    case 'wheel':
      input.wheel(event.delta);
      break;
    case 'touch':
      input.touch(event);
      break;
  }
}

export class GuestHands {
  readonly input: GuestInput;
  readonly #keys = new Set<number>();
  readonly #touches = new Map<number, Touch>();

  constructor(input: GuestInput) {
    this.input = input;
  }

  /** Passes events on; positions outside the guest's area (it may just have changed) are left out. */
  send(events: readonly InputEvent[]): void {
    for (const event of events) {
      if (!insideArea(event, this.input.area)) continue;
      this.#note(event);
      sendInput(this.input, event);
    }
  }

  /** Releases what this viewer holds down. */
  release(): void {
    for (const code of this.#keys) this.input.key(code, false);
    this.#keys.clear();
    for (const touch of this.#touches.values()) this.input.touch({ ...touch, phase: 'up' });
    this.#touches.clear();
  }

  #note(event: InputEvent): void {
    if (event.type === 'key') {
      if (event.pressed) this.#keys.add(event.code);
      else this.#keys.delete(event.code);
    } else if (event.type === 'touch') {
      if (event.phase === 'up') this.#touches.delete(event.contact);
      else this.#touches.set(event.contact, event);
    }
  }
}
