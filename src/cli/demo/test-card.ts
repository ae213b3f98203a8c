// The demo's first guest: a television's test card that moves. Bars and ramp show colours and depth,
// the grid and the circle show geometry, the sweep shows tearing, and the counter and the clock that
// frames arrive, and when.

import { XRGB8888 } from '../../display/pixel-format.ts';
import type { Frame, Program } from './program.ts';
import { advance, type Rectangle, type Surface } from './surface.ts';

const BACKGROUND = 0x20242c;
const GRID = 0x3a414d;
const INK = 0xf2f4f8;
const ACCENT = 0x35c2a1;

/** 75 % bars in the order of their brightness. */
const BARS = [0xbfbfbf, 0xbfbf00, 0x00bfbf, 0x00bf00, 0xbf00bf, 0xbf0000, 0x0000bf];
const GREYS = 16;
const GRID_PITCH = 40;
const SWEEP_WIDTH = 12;
const SWEEP_PIXELS_PER_FRAME = 6;

export class TestCard implements Program {
  readonly format = XRGB8888;
  #pressed = new Set<number>();
  #pointer = { x: 0, y: 0 };
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  paint(surface: Surface): void {
    const { width, height } = surface;
    surface.fill({ x: 0, y: 0, width, height }, BACKGROUND);
    for (let x = 0; x < width; x += GRID_PITCH) {
      surface.fill({ x, y: 0, width: 1, height }, GRID);
    }
    for (let y = 0; y < height; y += GRID_PITCH) {
      surface.fill({ x: 0, y, width, height: 1 }, GRID);
    }
    const card = cardOf(surface);
    const third = Math.floor(card.height / 3);
    row(surface, { ...card, height: third * 2 }, BARS);
    const greys = Array.from(
      { length: GREYS },
      (_, i) => Math.round((i * 255) / (GREYS - 1)) * 0x010101,
    );
    row(surface, { ...card, y: card.y + third * 2, height: Math.floor(third / 3) }, greys);
    const centre = { x: Math.floor(width / 2), y: Math.floor(height / 2) };
    surface.circle(centre, Math.floor(height / 2) - 4, INK);
    surface.text({ x: 16, y: 16 }, `${this.#name}  ${width}x${height} ${this.format.name}`, {
      colour: INK,
      scale: 3,
    });
  }

  draw({ surface, number, wallMs }: Frame): boolean {
    const panel = panelOf(surface);
    surface.fill(panel, 0x101216);
    const style = { colour: INK, scale: 4 };
    const at = { x: panel.x + 16, y: panel.y + 14 };
    surface.text(at, `frame ${String(number).padStart(7, '0')}`, style);
    const clock = new Date(wallMs).toISOString().slice(11, 23);
    const clockX = panel.x + panel.width - 16 - clock.length * advance(4);
    surface.text({ x: clockX, y: at.y }, clock, { colour: ACCENT, scale: 4 });
    const keys = [...this.#pressed].join(' ');
    const below = `pointer ${this.#pointer.x},${this.#pointer.y}  keys ${keys || '-'}`;
    surface.text({ x: at.x, y: at.y + 44 }, below, { colour: 0x9aa4b2, scale: 2 });
    this.#sweep(surface, panel, number);
    return true;
  }

  key(code: number, pressed: boolean): void {
    if (pressed) this.#pressed.add(code);
    else this.#pressed.delete(code);
  }

  position(x: number, y: number): void {
    this.#pointer = { x, y };
  }

  /** A bar that crosses the panel: a torn frame shows as a broken edge. */
  #sweep(surface: Surface, panel: Rectangle, number: number): void {
    const range = panel.width - SWEEP_WIDTH;
    const travel = (number * SWEEP_PIXELS_PER_FRAME) % (2 * range);
    const x = panel.x + (travel < range ? travel : 2 * range - travel);
    const y = panel.y + panel.height - 18;
    surface.fill({ x, y, width: SWEEP_WIDTH, height: 12 }, ACCENT);
  }
}

/** Where bars and greys stand. */
function cardOf({ width, height }: Surface): Rectangle {
  const inset = Math.floor(width / 6);
  const top = Math.floor(height / 6);
  return { x: inset, y: top, width: width - 2 * inset, height: Math.floor(height * 0.66) };
}

/** Where everything that moves stands. */
function panelOf(surface: Surface): Rectangle {
  const card = cardOf(surface);
  const height = 96;
  return { x: card.x, y: card.y + card.height - height, width: card.width, height };
}

/** Equal stripes from left to right. */
function row(surface: Surface, area: Rectangle, colours: readonly number[]): void {
  colours.forEach((colour, index) => {
    const left = Math.floor((index * area.width) / colours.length);
    const right = Math.floor(((index + 1) * area.width) / colours.length);
    surface.fill({ ...area, x: area.x + left, width: right - left }, colour);
  });
}
