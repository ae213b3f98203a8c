// The picture on a screen as a PNG file: exact pixels, 8 bits of red, green and blue.
//
// The guest's pages are read once, synchronously, into the encoder's own input (the copy that this output
// needs by nature, counted); compressing happens on the thread pool.

import { PNG } from 'pngjs';
import type { Picture } from '../../display/output.ts';
import { toRgba } from '../convert.ts';
import type { Screen } from '../screen.ts';

const COLOUR_TYPE_RGB = 2;

/** A screenshot is looked at once and thrown away: fast beats small. */
const DEFLATE_LEVEL = 1;

/** Chunks this large keep the trips between the thread pool and the main thread few. */
const DEFLATE_CHUNK_BYTES = 256 * 1024;

/** What the screen shows now; undefined when it is blank. */
export async function screenPng(screen: Screen): Promise<Buffer | undefined> {
  const picture = screen.shown;
  if (!picture) return undefined;
  const rgb = packedRgb(picture);
  screen.countCopied(rgb.length);
  return await encodePng({ width: picture.width, height: picture.height, rgb });
}

/** Rows of R, G, B bytes without padding. */
function packedRgb(picture: Picture): Buffer {
  const { width, height, stride, bytes } = picture;
  const rgb = Buffer.allocUnsafe(width * height * 3);
  const row = new Uint32Array(width);
  for (let y = 0, to = 0; y < height; y++) {
    toRgba({ ...picture, height: 1, bytes: bytes.subarray(y * stride) }, row);
    for (let x = 0; x < width; x++, to += 3) {
      const word = row[x]!;
      rgb[to] = word;
      rgb[to + 1] = word >>> 8;
      rgb[to + 2] = word >>> 16;
    }
  }
  return rgb;
}

function encodePng({ width, height, rgb }: { width: number; height: number; rgb: Buffer }) {
  const png = new PNG({
    colorType: COLOUR_TYPE_RGB,
    inputColorType: COLOUR_TYPE_RGB,
    inputHasAlpha: false,
    filterType: 0,
    deflateLevel: DEFLATE_LEVEL,
    deflateChunkSize: DEFLATE_CHUNK_BYTES,
  });
  png.width = width;
  png.height = height;
  png.data = rgb;
  return new Promise<Buffer>((resolve, reject) => {
    const parts: Buffer[] = [];
    png.on('data', (part: Buffer) => parts.push(part));
    png.on('end', () => resolve(Buffer.concat(parts)));
    png.on('error', reject);
    png.pack();
  });
}
