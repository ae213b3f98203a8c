// Pixel formats by FourCC, those that xen-drm-front offers (drm_fourcc.h; linux xen_drm_front_conn.c):
// names are from the most to the least significant bit of a little-endian pixel.

export interface PixelFormat {
  /** DRM's four-character code, as a number. */
  readonly fourcc: number;
  readonly name: string;
  /** Bits that one pixel takes in memory. */
  readonly bitsPerPixel: number;
  /** Neighbouring pixels of a row that share their bytes: 2 for YUYV, otherwise 1. */
  readonly pixelsPerUnit: number;
}

/** The number of a four-character code. */
export function fourcc(code: string): number {
  const [a, b, c, d] = [...code].map((letter) => letter.charCodeAt(0));
  return ((d! << 24) | (c! << 16) | (b! << 8) | a!) >>> 0;
}

function format(code: string, name: string, bitsPerPixel: number, pixelsPerUnit = 1): PixelFormat {
  return { fourcc: fourcc(code), name, bitsPerPixel, pixelsPerUnit };
}

export const XRGB8888 = format('XR24', 'XRGB8888', 32);
export const ARGB8888 = format('AR24', 'ARGB8888', 32);
export const RGB888 = format('RG24', 'RGB888', 24);
export const RGB565 = format('RG16', 'RGB565', 16);
export const XRGB1555 = format('XR15', 'XRGB1555', 16);
export const ARGB1555 = format('AR15', 'ARGB1555', 16);
export const XRGB4444 = format('XR12', 'XRGB4444', 16);
export const ARGB4444 = format('AR12', 'ARGB4444', 16);
export const YUYV = format('YUYV', 'YUYV', 16, 2);

const formats: readonly PixelFormat[] = [
  XRGB8888,
  ARGB8888,
  RGB888,
  RGB565,
  XRGB1555,
  ARGB1555,
  XRGB4444,
  ARGB4444,
  YUYV,
];

const byFourcc = new Map(formats.map((known) => [known.fourcc, known]));

/** The format with this code, or undefined when no output of ours can show it. */
export function pixelFormat(code: number): PixelFormat | undefined {
  return byFourcc.get(code);
}

/** Bytes of a row of whole 32-bit words: what our own frontends use. See geometry.ts for others' rows. */
export function strideOf(width: number, bitsPerPixel: number): number {
  return 4 * Math.ceil((width * bitsPerPixel) / 32);
}
