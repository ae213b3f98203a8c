// The demo's second guest: a sheet to draw on with the pointer and to type on with the keyboard. It
// draws only when something happened, so a still picture costs nobody anything.
//
// Invariant: each drawing operation is applied once to each of the two surfaces, in the same order, so
// both show the same sheet.

import { RGB565 } from '../../display/pixel-format.ts';
import {
  BTN_LEFT,
  BTN_RIGHT,
  KEY_BACKSPACE,
  KEY_ENTER,
  KEY_LEFTSHIFT,
  KEY_RIGHTSHIFT,
  typed,
} from './keymap.ts';
import type { Frame, Program } from './program.ts';
import { advance, type Colour, type Surface } from './surface.ts';

const PAPER = 0xfbf8f1;
const TEXT_COLOUR = 0x26303d;
const COLOURS: readonly Colour[] = [0x26303d, 0xd1495b, 0xedae49, 0x3a7d44, 0x00798c, 0x7a5195];
const TOOLBAR_HEIGHT = 56;
const SWATCH = 40;
const SWATCH_PITCH = 56;
const PEN_RADIUS = 3;
const ERASER_RADIUS = 18;
const TEXT_SCALE = 3;
const MARGIN = 24;
const LINE_HEIGHT = 10 * TEXT_SCALE;

type Operation = (surface: Surface) => void;

export class Sketch implements Program {
  readonly format = RGB565;
  readonly #name: string;
  /** What each of the two surfaces still has to draw. */
  readonly #pending: [Operation[], Operation[]] = [[], []];
  readonly #shifts = new Set<number>();
  #pointer = { x: 0, y: 0 };
  #button: number | undefined;
  #colour: Colour = COLOURS[1]!;
  #lines: string[] = [''];

  constructor(name: string) {
    this.#name = name;
  }

  paint(surface: Surface): void {
    surface.fill({ x: 0, y: 0, width: surface.width, height: surface.height }, PAPER);
    this.#paintToolbar(surface, this.#colour);
  }

  draw({ surface, index }: Frame): boolean {
    const operations = this.#pending[index]!;
    for (const operation of operations) operation(surface);
    const changed = operations.length > 0;
    operations.length = 0;
    return changed;
  }

  key(code: number, pressed: boolean): void {
    if (code === BTN_LEFT || code === BTN_RIGHT) this.#press(code, pressed);
    else if (code === KEY_LEFTSHIFT || code === KEY_RIGHTSHIFT) this.#shift(code, pressed);
    else if (pressed) this.#type(code);
  }

  position(x: number, y: number): void {
    const from = this.#pointer;
    const to = { x, y };
    this.#pointer = to;
    if (this.#button === undefined || y < TOOLBAR_HEIGHT) return;
    const pen =
      this.#button === BTN_LEFT
        ? { radius: PEN_RADIUS, colour: this.#colour }
        : { radius: ERASER_RADIUS, colour: PAPER };
    this.#queue((surface) => {
      surface.stroke(from, to, pen);
      this.#paintToolbar(surface, this.#colour);
    });
  }

  #queue(operation: Operation): void {
    for (const operations of this.#pending) operations.push(operation);
  }

  #press(button: number, pressed: boolean): void {
    this.#button = pressed ? button : undefined;
    if (!pressed) return;
    const swatch = Math.floor((this.#pointer.x - MARGIN) / SWATCH_PITCH);
    if (this.#pointer.y >= TOOLBAR_HEIGHT || COLOURS[swatch] === undefined) {
      this.position(this.#pointer.x, this.#pointer.y);
      return;
    }
    const colour = COLOURS[swatch];
    this.#colour = colour;
    this.#queue((surface) => this.#paintToolbar(surface, colour));
  }

  #shift(code: number, pressed: boolean): void {
    if (pressed) this.#shifts.add(code);
    else this.#shifts.delete(code);
  }

  #type(code: number): void {
    const line = this.#lines.length - 1;
    const before = this.#lines[line]!;
    if (code === KEY_ENTER) {
      this.#lines.push('');
    } else if (code === KEY_BACKSPACE) {
      this.#lines[line] = before.slice(0, -1);
      this.#queue((surface) => eraseCharacter(surface, line, before.length - 1));
    } else {
      const character = typed(code, this.#shifts.size > 0);
      if (character === undefined) return;
      this.#lines[line] = before + character;
      this.#queue((surface) => paintCharacter(surface, { line, column: before.length, character }));
    }
  }

  #paintToolbar(surface: Surface, chosen: Colour): void {
    surface.fill({ x: 0, y: 0, width: surface.width, height: TOOLBAR_HEIGHT }, 0xe7e1d3);
    COLOURS.forEach((colour, index) => {
      const x = MARGIN + index * SWATCH_PITCH;
      if (colour === chosen)
        surface.fill({ x: x - 4, y: 4, width: SWATCH + 8, height: 48 }, 0xffffff);
      surface.fill({ x, y: 8, width: SWATCH, height: SWATCH }, colour);
    });
    const hint = `${this.#name}: left draws, right wipes, keys type`;
    const x = MARGIN + COLOURS.length * SWATCH_PITCH + 16;
    surface.text({ x, y: 21 }, hint, { colour: TEXT_COLOUR, scale: 2 });
  }
}

/** Where a character of the typed text stands, wrapped to the sheet's width and height. */
function cell(surface: Surface, line: number, column: number): { x: number; y: number } {
  const columns = Math.floor((surface.width - 2 * MARGIN) / advance(TEXT_SCALE));
  const rows = Math.floor((surface.height - TOOLBAR_HEIGHT - 2 * MARGIN) / LINE_HEIGHT);
  const row = (line + Math.floor(column / columns)) % rows;
  return {
    x: MARGIN + (column % columns) * advance(TEXT_SCALE),
    y: TOOLBAR_HEIGHT + MARGIN + row * LINE_HEIGHT,
  };
}

function eraseCharacter(surface: Surface, line: number, column: number): void {
  if (column < 0) return;
  const at = cell(surface, line, column);
  surface.fill({ ...at, width: advance(TEXT_SCALE), height: LINE_HEIGHT }, PAPER);
}

function paintCharacter(
  surface: Surface,
  { line, column, character }: { line: number; column: number; character: string },
): void {
  eraseCharacter(surface, line, column);
  const style = { colour: TEXT_COLOUR, scale: TEXT_SCALE };
  surface.text(cell(surface, line, column), character, style);
}
