// Pictures that the daemon gave out, for comparing: PNG decoded, and the difference in words.
import { PNG } from 'pngjs';

const CHANNELS = 4;
/** The squares in which the guest program `flip` writes the frame's number, in pixels and in bits. */
const SQUARE = 8;
const NUMBER_BITS = 32;

/** Red, green, blue, opaque: four bytes a pixel. */
export interface RgbaPicture {
  readonly width: number;
  readonly height: number;
  readonly rgba: Uint8Array;
}

export function decodePng(png: Buffer): RgbaPicture {
  const { width, height, data } = PNG.sync.read(png);
  return { width, height, rgba: data };
}

/** How `seen` differs from `wanted`, in words; undefined when every byte is the same. */
export function difference(seen: RgbaPicture, wanted: RgbaPicture): string | undefined {
  const { width, height } = wanted;
  if (seen.width !== width || seen.height !== height) {
    return `the picture is ${seen.width}x${seen.height} and should be ${width}x${height}`;
  }
  if (Buffer.compare(seen.rgba, wanted.rgba) === 0) return undefined;
  const first = seen.rgba.findIndex((byte, index) => byte !== wanted.rgba[index]);
  const pixel = Math.floor(first / CHANNELS);
  const at = pixel * CHANNELS;
  const colour = (rgba: Uint8Array) =>
    Buffer.from(rgba.subarray(at, at + CHANNELS)).toString('hex');
  return (
    `pixel (${pixel % width}, ${Math.floor(pixel / width)}) is ${colour(seen.rgba)} ` +
    `and should be ${colour(wanted.rgba)}`
  );
}

/** The frame number that the guest program `flip` wrote into this picture (guest-programs/flip.c). */
export function frameNumber({ width, rgba }: RgbaPicture): number {
  let number = 0;
  for (let bit = 0; bit < NUMBER_BITS; bit++) {
    const x = bit * SQUARE + SQUARE / 2;
    const at = ((SQUARE / 2) * width + x) * CHANNELS;
    number = number * 2 + (rgba[at]! > 0x7f ? 1 : 0);
  }
  return number;
}
