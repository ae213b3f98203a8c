// The values of `share`'s options that are not plain words: sizes, pictures, times. Each is checked before anything
// is started, and what is wrong is said in one line with an example of what is right.

import { DIMENSION_MAX } from '../../display/geometry.ts';
import { fourcc, type PixelFormat, pixelFormat } from '../../display/pixel-format.ts';
import { UsageError } from '../../runtime/errors.ts';
import { parseShareId, type ShareId } from '../../share/share-id.ts';

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 };
const DEFAULT_RATE_HZ = 60;
const RATE_HZ_MAX = 1000;

/** Bytes, as 4096, 64K, 1M, 1MiB. @throws UsageError naming the option */
export function parseSize(text: string, option: string): number {
  const [, digits, unit] = /^(\d{1,12})([KMG]?)(?:iB|B)?$/i.exec(text) ?? [];
  const bytes = Number(digits) * (UNITS[unit?.toUpperCase() ?? ''] ?? Number.NaN);
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new UsageError(`${option} ${text} is not a size, such as 4096, 64K or 1M`);
}

/** @returns milliseconds @throws UsageError naming the option */
export function parseSeconds(text: string, option: string): number {
  const seconds = Number(text);
  if (/^\d{1,6}(\.\d{1,3})?$/.test(text) && seconds > 0) return seconds * 1000;
  throw new UsageError(`${option} ${text} is not a time in seconds, such as 10 or 0.5`);
}

/** @throws UsageError */
export function parseId(text: string | undefined): ShareId | undefined {
  if (text === undefined) return undefined;
  const id = parseShareId(text);
  if (id !== undefined) return id;
  throw new UsageError(
    `${text} is not the id of a share: 32 hexadecimal digits, as export prints it`,
  );
}

/** Pictures that follow each other. */
export interface PictureShape {
  readonly width: number;
  readonly height: number;
  readonly rateHz: number;
}

/** 1280x720@60, or 1280x720 for 60. @throws UsageError naming the option */
export function parseShape(text: string, option: string): PictureShape {
  const [, width, height, rate] =
    /^(\d{1,5})x(\d{1,5})(?:@(\d{1,4}(?:\.\d{1,3})?))?$/.exec(text) ?? [];
  const shape = {
    width: Number(width),
    height: Number(height),
    rateHz: rate === undefined ? DEFAULT_RATE_HZ : Number(rate),
  };
  const { rateHz } = shape;
  const sides = [shape.width, shape.height].every((side) => side >= 1 && side <= DIMENSION_MAX);
  if (sides && rateHz > 0 && rateHz <= RATE_HZ_MAX) return shape;
  throw new UsageError(`${option} ${text} is not a size and a rate, such as 1280x720@60`);
}

export interface PictureSpec extends PictureShape {
  readonly format: PixelFormat;
}

/** XR24:1920x1080@60. @throws UsageError naming the option */
export function parsePicture(text: string, option: string): PictureSpec {
  const [code, shape] = [text.slice(0, 4), text.slice(5)];
  if (text[4] !== ':') {
    throw new UsageError(
      `${option} ${text} is not FOURCC:WIDTHxHEIGHT@RATE, such as XR24:1920x1080@60`,
    );
  }
  const format = pixelFormat(fourcc(code));
  if (format === undefined) {
    throw new UsageError(
      `${option} ${text}: there is no pixel format ${code} here, but XR24, AR24, RG24, RG16, YUYV and others`,
    );
  }
  const spec = { format, ...parseShape(shape, option) };
  if (spec.width % format.pixelsPerUnit === 0) return spec;
  throw new UsageError(`${option} ${text}: pixels of ${code} come in ${format.pixelsPerUnit}s`);
}

/** Bytes of a row without padding, as raw video has them. */
export function packedStride({ format, width }: Pick<PictureSpec, 'format' | 'width'>): number {
  return Math.ceil((width * format.bitsPerPixel) / 8);
}
