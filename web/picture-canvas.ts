// One canvas that shows a guest's picture, pixel for pixel: unpacks updates, converts the guest's pixel
// format, and puts the rectangles where they belong.

import { pixelFormat } from '../src/display/pixel-format.ts';
import { CODEC_DEFLATE_RAW, CODEC_RAW, type Update } from '../src/outputs/browser/protocol.ts';
import { toRgba } from '../src/outputs/convert.ts';
import { RECTANGLE_WORDS } from '../src/outputs/rectangles.ts';

export class PictureCanvas {
  readonly canvas: HTMLCanvasElement;
  readonly #context: CanvasRenderingContext2D;
  /** Converted pixels, kept for the next update. */
  #rgba = new Uint32Array(0);

  constructor(canvas: HTMLCanvasElement) {
    this.canvas = canvas;
    const context = canvas.getContext('2d', { alpha: false });
    if (!context) throw new Error('this browser has no 2D canvas');
    this.#context = context;
  }

  /** Draws an update. @throws when it is not one that this page understands */
  async draw(update: Update): Promise<void> {
    const pixels = await pixelsOf(update);
    const { width, height, fourcc, rectangles } = update;
    if (width === 0 || height === 0) return;
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    const format = pixelFormat(fourcc);
    if (!format) throw new Error(`unknown pixel format ${fourcc}`);
    let at = 0;
    for (let index = 0; index < rectangles.length; index += RECTANGLE_WORDS) {
      const [x, y, columns, rows] = rectangles.subarray(index, index + RECTANGLE_WORDS);
      const stride = (columns! * format.bitsPerPixel) >>> 3;
      const bytes = pixels.subarray(at, at + stride * rows!);
      at += stride * rows!;
      const image = this.#image(columns!, rows!);
      toRgba({ width: columns!, height: rows!, stride, format, bytes }, this.#rgba);
      this.#context.putImageData(image, x!, y!);
    }
  }

  /** Image data on the kept buffer. */
  #image(width: number, height: number): ImageData {
    if (this.#rgba.length < width * height) this.#rgba = new Uint32Array(width * height);
    const bytes = new Uint8ClampedArray(this.#rgba.buffer, 0, width * height * 4);
    return new ImageData(bytes, width, height);
  }
}

/** The pixels of all chunks, unpacked and put together. */
async function pixelsOf({ chunks }: Update): Promise<Uint8Array<ArrayBuffer>> {
  const parts = await Promise.all(
    chunks.map(async ({ codec, data, pixelBytes }) => {
      if (codec !== CODEC_RAW && codec !== CODEC_DEFLATE_RAW) throw new Error(`codec ${codec}`);
      const pixels = codec === CODEC_RAW ? data : await inflated(data);
      if (pixels.length !== pixelBytes) throw new Error('a chunk of the wrong length');
      return pixels;
    }),
  );
  const [only] = parts;
  if (parts.length === 1) return only as Uint8Array<ArrayBuffer>;
  const whole = new Uint8Array(parts.reduce((bytes, { length }) => bytes + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

async function inflated(data: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const unpacking = new DecompressionStream('deflate-raw');
  const writer = unpacking.writable.getWriter();
  // The reader below meets any error of these two.
  writer.write(data as Uint8Array<ArrayBuffer>).catch(() => {});
  writer.close().catch(() => {});
  return new Uint8Array(await new Response(unpacking.readable).arrayBuffer());
}
