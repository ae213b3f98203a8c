// What a guest's program feels of its keyboards and pointers: everything is noted, and each key that comes is judged.

import type { KeyboardHandlers } from '../../src/input/frontend.ts';
import type { DomId } from '../../src/xen/ids.ts';
import type { Surroundings } from '../surroundings.ts';

/** Whether this key may come to the guest so. */
export type KeyRule = (code: number, pressed: boolean) => boolean;

export class FeltInput {
  readonly handlers: KeyboardHandlers;
  readonly #world: Pick<Surroundings, 'trace' | 'findings'>;
  readonly #domid: DomId;
  readonly #mayCome: KeyRule;
  readonly #down = new Set<number>();

  constructor(
    world: Pick<Surroundings, 'trace' | 'findings'>,
    { domid, mayCome }: { readonly domid: DomId; readonly mayCome: KeyRule },
  ) {
    this.#world = world;
    this.#domid = domid;
    this.#mayCome = mayCome;
    this.handlers = {
      key: (code, pressed) => this.#key(code, pressed),
      motion: (dx, dy) => this.note(dx, dy),
      position: (x, y) => this.note(x, y),
      wheel: (delta) => this.note(delta, 0),
      touch: (contact, place) => this.note(contact, place?.x ?? 0),
      sync: () => this.note(0, 0),
    };
  }

  get keysDown(): number {
    return this.#down.size;
  }

  note(x: number, y: number): void {
    this.#world.trace.note('pointed', this.#domid, x, y);
  }

  #key(code: number, pressed: boolean): void {
    const { trace, findings } = this.#world;
    trace.note('key', this.#domid, code, Number(pressed));
    findings.hold(this.#mayCome(code, pressed), 'input-of-another', () => {
      return `domain ${this.#domid} got key ${code}`;
    });
    if (pressed) this.#down.add(code);
    else this.#down.delete(code);
  }
}
