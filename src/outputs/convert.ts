// Pixels of every format that guests use, as RGBA bytes: for the canvas of the viewer page and for PNG.
// Runs in Node and in the browser alike (no imports of either).
//
// Exactness: 5- and 6-bit channels are widened by repeating their top bits (so that full is 255 and zero is
// 0), and the result is always opaque: X is not alpha, and on a screen, with nothing behind it, DRM's
// premultiplied A changes nothing either. YUYV is BT.601, limited range, as DRM assumes by default.
// Layouts: drm_fourcc.h, little-endian.

import {
  ARGB1555,
  ARGB4444,
  ARGB8888,
  type PixelFormat,
  RGB565,
  RGB888,
  XRGB1555,
  XRGB4444,
  XRGB8888,
  YUYV,
} from '../display/pixel-format.ts';

/** Pixels to convert; like display/output.ts' Picture, which is one. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  /** Bytes from one row to the next. */
  readonly stride: number;
  readonly format: PixelFormat;
  readonly bytes: Uint8Array;
}

const OPAQUE = 0xff00_0000;

/**
 * Writes all rows of `pixels` into `rgba`, one word per pixel (bytes R, G, B, A in memory), without padding.
 * @throws RangeError when `rgba` is too small or `pixels` has fewer bytes than its size needs
 */
export function toRgba(pixels: Pixels, rgba: Uint32Array): void {
  const { width, height, stride, format, bytes } = pixels;
  const rowBytes = (width * format.bitsPerPixel) >>> 3;
  const needed = height === 0 ? 0 : (height - 1) * stride + rowBytes;
  if (bytes.byteLength < needed || rgba.length < width * height) {
    throw new RangeError(`${width}x${height} ${format.name} does not fit`);
  }
  const convertRow = rowConverter(format);
  const { buffer } = bytes;
  for (let y = 0; y < height; y++) {
    convertRow(buffer, bytes.byteOffset + y * stride, rgba, y * width, width);
  }
}

/** Converts `width` pixels from byte `from` of `buffer` to word `to` of `rgba`. */
type RowConverter = (
  buffer: ArrayBufferLike,
  from: number,
  rgba: Uint32Array,
  to: number,
  width: number,
) => void;

function rowConverter(format: PixelFormat): RowConverter {
  switch (format.fourcc) {
    case XRGB8888.fourcc:
    case ARGB8888.fourcc:
      return rowOfXrgb8888;
    case RGB888.fourcc:
      return rowOfRgb888;
    case YUYV.fourcc:
      return rowOfYuyv;
    default:
      return rowByTable(tableOf(format));
  }
}

const rowOfXrgb8888: RowConverter = (buffer, from, rgba, to, width) => {
  const words = wordsAt(buffer, from, width);
  for (let x = 0; x < width; x++) {
    const word = words[x]!;
    rgba[to + x] = OPAQUE | (word & 0xff00) | ((word >>> 16) & 0xff) | ((word & 0xff) << 16);
  }
};

/** The words of a row; of a copy where their place is no multiple of 4. */
function wordsAt(buffer: ArrayBufferLike, from: number, width: number): Uint32Array {
  if (from % 4 === 0) return new Uint32Array(buffer, from, width);
  return new Uint32Array(buffer.slice(from, from + width * 4));
}

const rowOfRgb888: RowConverter = (buffer, from, rgba, to, width) => {
  const bytes = new Uint8Array(buffer, from, width * 3);
  for (let x = 0; x < width; x++) {
    const at = x * 3;
    rgba[to + x] = OPAQUE | (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
  }
};

const rowOfYuyv: RowConverter = (buffer, from, rgba, to, width) => {
  const bytes = new Uint8Array(buffer, from, width * 2);
  for (let x = 0; x < width; x++) {
    const pair = (x >>> 1) * 4;
    // An odd last pixel has no V of its own; grey is neutral.
    const v = pair + 3 < bytes.length ? bytes[pair + 3]! : NEUTRAL_CHROMA;
    rgba[to + x] = rgbaOfYuv(bytes[x * 2]!, bytes[pair + 1]!, v);
  }
};

const NEUTRAL_CHROMA = 128;

/** BT.601 limited range in 8-bit fixed point, rounded. */
function rgbaOfYuv(y: number, u: number, v: number): number {
  const luma = 298 * (y - 16) + 128;
  const blueness = u - NEUTRAL_CHROMA;
  const redness = v - NEUTRAL_CHROMA;
  const red = clampByte((luma + 409 * redness) >> 8);
  const green = clampByte((luma - 100 * blueness - 208 * redness) >> 8);
  const blue = clampByte((luma + 516 * blueness) >> 8);
  return OPAQUE | (blue << 16) | (green << 8) | red;
}

function clampByte(value: number): number {
  return Math.min(255, Math.max(0, value));
}

function rowByTable(table: Uint32Array): RowConverter {
  return (buffer, from, rgba, to, width) => {
    const pixels =
      from % 2 === 0
        ? new Uint16Array(buffer, from, width)
        : new Uint16Array(buffer.slice(from, from + width * 2));
    for (let x = 0; x < width; x++) rgba[to + x] = table[pixels[x]!]!;
  };
}

/** Widths of the red, green and blue fields of the 16-bit formats, blue lowest. */
const FIELDS = new Map<number, readonly [red: number, green: number, blue: number]>([
  [RGB565.fourcc, [5, 6, 5]],
  [XRGB1555.fourcc, [5, 5, 5]],
  [ARGB1555.fourcc, [5, 5, 5]],
  [XRGB4444.fourcc, [4, 4, 4]],
  [ARGB4444.fourcc, [4, 4, 4]],
]);

const tables = new Map<number, Uint32Array>();

/** All 65536 pixels of a 16-bit format, made when first needed (256 KiB). */
function tableOf(format: PixelFormat): Uint32Array {
  let table = tables.get(format.fourcc);
  if (!table) {
    const fields = FIELDS.get(format.fourcc);
    if (!fields) throw new RangeError(`no conversion for ${format.name}`);
    table = Uint32Array.from({ length: 0x1_0000 }, (_, pixel) => rgbaOfFields(pixel, fields));
    tables.set(format.fourcc, table);
  }
  return table;
}

function rgbaOfFields(
  pixel: number,
  [red, green, blue]: readonly [red: number, green: number, blue: number],
): number {
  const r = widen(pixel >>> (blue + green), red);
  const g = widen(pixel >>> blue, green);
  const b = widen(pixel, blue);
  return OPAQUE | (b << 16) | (g << 8) | r;
}

/** The low `bits` bits (4 or more) of `value` as 8 bits: its top bits are repeated below. */
function widen(value: number, bits: number): number {
  const field = value & ((1 << bits) - 1);
  return ((field << (8 - bits)) | (field >>> (2 * bits - 8))) & 0xff;
}
