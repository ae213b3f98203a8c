// Drawing into a framebuffer, as a guest's program does it: straight into the shared pages, in the
// pixel format that they have. Only what the demo's guests need: rectangles, lines, discs, text.
//
// Invariant: everything is clipped to the surface; no drawing call can write outside of its pages.

import type { PixelFormat } from '../../display/pixel-format.ts';
import { GLYPH_HEIGHT, GLYPH_WIDTH, glyphColumns } from './font.ts';

/** A colour as 0xRRGGBB. */
export type Colour = number;

export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface SurfaceLayout {
  readonly bytes: Uint8Array;
  readonly width: number;
  readonly height: number;
  /** Bytes from one row to the next; a whole number of pixels. */
  readonly stride: number;
  readonly format: PixelFormat;
}

export interface TextStyle {
  readonly colour: Colour;
  /** Pixels per font pixel. */
  readonly scale: number;
}

export class Surface {
  readonly width: number;
  readonly height: number;
  readonly #pixels: Uint32Array | Uint16Array;
  readonly #rowPixels: number;
  readonly #encode: (colour: Colour) => number;

  /** @throws RangeError when the format is neither 32 bits per pixel nor RGB565 */
  constructor({ bytes, width, height, stride, format }: SurfaceLayout) {
    if (format.bitsPerPixel !== 32 && format.name !== 'RGB565') {
      throw new RangeError(`no drawing in ${format.name}; use XRGB8888, ARGB8888 or RGB565`);
    }
    this.width = width;
    this.height = height;
    const deep = format.bitsPerPixel === 32;
    const pixels = (stride * height) / (deep ? 4 : 2);
    this.#pixels = deep
      ? new Uint32Array(bytes.buffer, bytes.byteOffset, pixels)
      : new Uint16Array(bytes.buffer, bytes.byteOffset, pixels);
    this.#rowPixels = stride / (deep ? 4 : 2);
    this.#encode = deep ? encode8888 : encode565;
  }

  fill({ x, y, width, height }: Rectangle, colour: Colour): void {
    const pixel = this.#encode(colour);
    const left = Math.max(0, x);
    const right = Math.min(this.width, x + width);
    if (right <= left) return;
    for (let row = Math.max(0, y); row < Math.min(this.height, y + height); row++) {
      const start = row * this.#rowPixels;
      this.#pixels.fill(pixel, start + left, start + right);
    }
  }

  /** A disc of `radius` pixels around a point. */
  disc(centre: { x: number; y: number }, radius: number, colour: Colour): void {
    for (let dy = -radius; dy <= radius; dy++) {
      const half = Math.floor(Math.sqrt(radius * radius - dy * dy));
      this.fill({ x: centre.x - half, y: centre.y + dy, width: 2 * half + 1, height: 1 }, colour);
    }
  }

  /** A ring of one pixel's width around a point. */
  circle(centre: { x: number; y: number }, radius: number, colour: Colour): void {
    const steps = Math.ceil(2 * Math.PI * radius);
    for (let step = 0; step < steps; step++) {
      const angle = (2 * Math.PI * step) / steps;
      const x = Math.round(centre.x + radius * Math.cos(angle));
      const y = Math.round(centre.y + radius * Math.sin(angle));
      this.fill({ x, y, width: 1, height: 1 }, colour);
    }
  }

  /** A stroke with a round pen of `radius` pixels. */
  stroke(from: { x: number; y: number }, to: { x: number; y: number }, pen: Pen): void {
    const steps = Math.max(1, Math.abs(to.x - from.x), Math.abs(to.y - from.y));
    for (let step = 0; step <= steps; step++) {
      const x = Math.round(from.x + ((to.x - from.x) * step) / steps);
      const y = Math.round(from.y + ((to.y - from.y) * step) / steps);
      this.disc({ x, y }, pen.radius, pen.colour);
    }
  }

  /** One line of text with its upper left corner at a point. @returns the x where the text ends */
  text(at: { x: number; y: number }, line: string, { colour, scale }: TextStyle): number {
    let x = at.x;
    for (const character of line) {
      const columns = glyphColumns(character);
      for (let column = 0; column < GLYPH_WIDTH; column++) {
        for (let row = 0; row < GLYPH_HEIGHT; row++) {
          if (((columns[column]! >> row) & 1) === 0) continue;
          const dot = { x: x + column * scale, y: at.y + row * scale, width: scale, height: scale };
          this.fill(dot, colour);
        }
      }
      x += advance(scale);
    }
    return x;
  }
}

export interface Pen {
  readonly radius: number;
  readonly colour: Colour;
}

/** Pixels from one character to the next. */
export function advance(scale: number): number {
  return (GLYPH_WIDTH + 1) * scale;
}

function encode8888(colour: Colour): number {
  return (0xff00_0000 | colour) >>> 0;
}

function encode565(colour: Colour): number {
  return ((colour >> 8) & 0xf800) | ((colour >> 5) & 0x07e0) | ((colour >> 3) & 0x001f);
}
