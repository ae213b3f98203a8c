// What a guest of the demo runs: a program that paints into two surfaces in turn and is told what the
// person types and where the pointer is.

import type { PixelFormat } from '../../display/pixel-format.ts';
import type { Surface } from './surface.ts';

/** One of the two surfaces, and what the program may want to know while it draws a frame. */
export interface Frame {
  readonly surface: Surface;
  /** Which of the two surfaces it is, 0 or 1. */
  readonly index: number;
  /** Frames drawn before this one. */
  readonly number: number;
  /** Milliseconds since the Unix epoch. */
  readonly wallMs: number;
}

export interface Program {
  readonly format: PixelFormat;
  /** Paints a surface for the first time. */
  paint(surface: Surface): void;
  /** Draws what changed since this surface was last shown. @returns false when nothing did */
  draw(frame: Frame): boolean;
  key(code: number, pressed: boolean): void;
  position(x: number, y: number): void;
}
