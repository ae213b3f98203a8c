// The keyboards and pointers of one guest as one: each event goes to exactly one of its devices (entries of `vkb`),
// because a guest adds up what its devices say, and an event told twice would be typed twice.
//
// Which one: the device with the lowest number that is connected and has what the event is for (keys, a pointer, a
// touch screen). A guest's programs see no difference between its keyboards, so the only thing that matters is that
// it is always the same one; and a touch screen in a device of its own gets the touches.
//
// Invariant: what was put down on a device is lifted on the same one, whichever comes first by then.

import type { GuestInput, Touch } from './guest-input.ts';
import type { Area, KeyboardInput } from './keyboard-input.ts';

const NO_AREA: Area = { width: 0, height: 0 };

export class RoutedInput implements GuestInput {
  /** By their numbers. */
  #devices: readonly { readonly devid: number; readonly input: KeyboardInput }[] = [];

  get empty(): boolean {
    return this.#devices.length === 0;
  }

  add(devid: number, input: KeyboardInput): void {
    this.#devices = [...this.#devices, { devid, input }].sort((a, b) => a.devid - b.devid);
  }

  remove(input: KeyboardInput): void {
    this.#devices = this.#devices.filter((device) => device.input !== input);
  }

  get state(): GuestInput['state'] {
    if (this.empty) return 'closed';
    return this.#find(({ state }) => state === 'connected') ? 'connected' : 'waiting';
  }

  get area(): Area {
    return this.#pointer?.area ?? NO_AREA;
  }

  key(code: number, pressed: boolean): void {
    const holder = this.#find((input) => input.holdsKey(code));
    (holder ?? this.#choose((input) => input.takesKey(code)))?.key(code, pressed);
  }

  motion(dx: number, dy: number): void {
    this.#pointer?.motion(dx, dy);
  }

  position(x: number, y: number): void {
    this.#pointer?.position(x, y);
  }

  wheel(delta: number): void {
    this.#pointer?.wheel(delta);
  }

  touch(touch: Touch): void {
    const pointer = this.#pointer;
    const target =
      this.#find((input) => input.holdsContact(touch.contact)) ??
      this.#find((input) => input.state === 'connected' && input.takesTouch) ??
      pointer;
    if (target === undefined || pointer === undefined) return;
    target.touch(target === pointer ? touch : scaled(touch, pointer.area, target.area));
  }

  releaseAll(): void {
    for (const { input } of this.#devices) input.releaseAll();
  }

  get #pointer(): KeyboardInput | undefined {
    return this.#choose((input) => input.takesPointer);
  }

  /** The first that is connected and takes the event; else the first, which counts what it drops. */
  #choose(takes: (input: KeyboardInput) => boolean): KeyboardInput | undefined {
    return (
      this.#find((input) => input.state === 'connected' && takes(input)) ?? this.#devices[0]?.input
    );
  }

  #find(fits: (input: KeyboardInput) => boolean): KeyboardInput | undefined {
    return this.#devices.find(({ input }) => fits(input))?.input;
  }
}

/** The touch at the same place of another device's area. */
function scaled(touch: Touch, from: Area, to: Area): Touch {
  return {
    ...touch,
    x: (touch.x * to.width) / from.width,
    y: (touch.y * to.height) / from.height,
  };
}
