// The picture that the guest program `paint` draws, computed here: the twin of guest-programs/paint.c,
// where the rule is written down.

export type PaintFormat = 'XR24' | 'RG16';

export interface Pattern {
  readonly width: number;
  readonly height: number;
  readonly format: PaintFormat;
  readonly seed: number;
}

const SEED_MIX = 0x9e3779b9;

function xorshift32(state: number): number {
  let next = state;
  next ^= next << 13;
  next ^= next >>> 17;
  next ^= next << 5;
  return next >>> 0;
}

/** Widens a channel of `bits` bits to 8 by repeating its upper bits, so that all ones stay all ones. */
function widen(value: number, bits: number): number {
  return (value << (8 - bits)) | (value >>> (2 * bits - 8));
}

/** What the guest wrote as pixels, and how a picture in red, green, blue, opaque shows it: 4 bytes each. */
export function paintedRgba({ width, height, format, seed }: Pattern): Uint8Array {
  const rgba = new Uint8Array(width * height * 4);
  let at = 0;
  for (let y = 0; y < height; y++) {
    let state = ((seed + y) ^ SEED_MIX) >>> 0 || 1;
    for (let x = 0; x < width; x++) {
      state = xorshift32(state);
      if (format === 'XR24') {
        rgba[at++] = state >>> 16;
        rgba[at++] = state >>> 8;
        rgba[at++] = state;
      } else {
        rgba[at++] = widen((state >>> 11) & 0x1f, 5);
        rgba[at++] = widen((state >>> 5) & 0x3f, 6);
        rgba[at++] = widen(state & 0x1f, 5);
      }
      rgba[at++] = 0xff;
    }
  }
  return rgba;
}
