// What the demo's drawing guest must show after given keys and pointer positions: the same program, drawn
// here into private memory and turned into RGBA by hand, with none of the product's conversions.

import { Sketch } from '../../src/cli/demo/sketch.ts';
import { Surface } from '../../src/cli/demo/surface.ts';
import type { Pixels } from './demo-process.ts';

export const SHEET = { width: 1024, height: 640 };

/** The sheet of the guest `name` after `act` has pressed and moved. */
export function expectedSheet(name: string, act: (sketch: Sketch) => void = () => {}): Pixels {
  const { width, height } = SHEET;
  const sketch = new Sketch(name);
  const bytes = new Uint8Array(width * height * 2);
  const surface = new Surface({ bytes, width, height, stride: width * 2, format: sketch.format });
  sketch.paint(surface);
  act(sketch);
  sketch.draw({ surface, index: 0, number: 0, wallMs: 0 });
  return { width, height, data: rgbaOf565(bytes) };
}

/** Each channel widened by repeating its high bits, as DRM defines it. */
function rgbaOf565(bytes: Uint8Array): Uint8Array {
  const data = new Uint8Array(bytes.length * 2);
  for (let at = 0; at < bytes.length; at += 2) {
    const pixel = bytes[at]! | (bytes[at + 1]! << 8);
    const [red, green, blue] = [pixel >> 11, (pixel >> 5) & 0x3f, pixel & 0x1f];
    data[at * 2] = (red << 3) | (red >> 2);
    data[at * 2 + 1] = (green << 2) | (green >> 4);
    data[at * 2 + 2] = (blue << 3) | (blue >> 2);
    data[at * 2 + 3] = 0xff;
  }
  return data;
}

/** How many pixels differ; 0 when the pictures are the same. */
export function differentPixels(a: Pixels, b: Pixels): number {
  if (a.width !== b.width || a.height !== b.height) return Number.POSITIVE_INFINITY;
  let different = 0;
  for (let at = 0; at < a.data.length; at += 4) {
    const same =
      a.data[at] === b.data[at] &&
      a.data[at + 1] === b.data[at + 1] &&
      a.data[at + 2] === b.data[at + 2];
    if (!same) different++;
  }
  return different;
}
