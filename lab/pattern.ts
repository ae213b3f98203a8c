// The picture that the guest program `paint` draws, computed here: the twin of guest-programs/pattern.h,
// where the rule is written down.

export type PaintFormat = 'XR24' | 'AR24' | 'RG16';

export interface Pattern {
  readonly width: number;
  readonly height: number;
  readonly format: PaintFormat;
  readonly seed: number;
}

const SEED_MIX = 0x9e3779b9;
/** The bits of a pixel that the pattern fills. */
const MASKS: Record<PaintFormat, number> = { XR24: 0xffffff, AR24: 0xffffffff, RG16: 0xffff };

function xorshift32(state: number): number {
  let next = state;
  next ^= next << 13;
  next ^= next >>> 17;
  next ^= next << 5;
  return next >>> 0;
}

/** The pixels as numbers, row by row. */
function paintedValues({ width, height, format, seed }: Pattern): Uint32Array {
  const values = new Uint32Array(width * height);
  const mask = MASKS[format];
  let at = 0;
  for (let y = 0; y < height; y++) {
    let state = ((seed + y) ^ SEED_MIX) >>> 0 || 1;
    for (let x = 0; x < width; x++) {
      state = xorshift32(state);
      values[at++] = state & mask;
    }
  }
  return values;
}

/** The pixels as they lie in memory, without what a row has beyond them. */
export function paintedPixels(pattern: Pattern): Uint8Array {
  const values = paintedValues(pattern);
  if (pattern.format !== 'RG16') return new Uint8Array(values.buffer);
  return new Uint8Array(Uint16Array.from(values).buffer);
}

/** Widens a channel of `bits` bits to 8 by repeating its upper bits, so that all ones stay all ones. */
function widen(value: number, bits: number): number {
  return (value << (8 - bits)) | (value >>> (2 * bits - 8));
}

/** How a picture in red, green, blue, opaque shows what was painted: 4 bytes each. Alpha has nothing behind it. */
export function paintedRgba(pattern: Pattern): Uint8Array {
  const values = paintedValues(pattern);
  const rgba = new Uint8Array(values.length * 4);
  let at = 0;
  for (const value of values) {
    if (pattern.format === 'RG16') {
      rgba[at++] = widen(value >>> 11, 5);
      rgba[at++] = widen((value >>> 5) & 0x3f, 6);
      rgba[at++] = widen(value & 0x1f, 5);
    } else {
      rgba[at++] = value >>> 16;
      rgba[at++] = value >>> 8;
      rgba[at++] = value;
    }
    rgba[at++] = 0xff;
  }
  return rgba;
}
