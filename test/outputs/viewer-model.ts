// A viewer as a test sees one: reads update messages and keeps the frame that results from them, in the
// guest's format.

import assert from 'node:assert/strict';
import { inflateRawSync } from 'node:zlib';
import type { Picture } from '../../src/display/output.ts';
import { pixelFormat } from '../../src/display/pixel-format.ts';
import {
  CODEC_DEFLATE_RAW,
  CODEC_RAW,
  readUpdate,
  type Update,
} from '../../src/outputs/browser/protocol.ts';
import { rowBytesOf } from '../../src/outputs/damage.ts';

/** The pixels of all rectangles, unpacked. */
function pixelsOf(update: Update): Buffer {
  const parts = update.chunks.map(({ codec, pixelBytes, data }) => {
    assert([CODEC_RAW, CODEC_DEFLATE_RAW].includes(codec), `codec ${codec}`);
    const pixels = codec === CODEC_RAW ? Buffer.from(data) : inflateRawSync(data);
    assert.equal(pixels.length, pixelBytes);
    return pixels;
  });
  return Buffer.concat(parts);
}

export class ViewerModel {
  width = 0;
  height = 0;
  fourcc = 0;
  #frame = Buffer.alloc(0);

  apply(message: Uint8Array): Update {
    const copy = new Uint8Array(message);
    const update = readUpdate(copy.buffer);
    this.#resize(update);
    const format = pixelFormat(update.fourcc);
    const pixels = pixelsOf(update);
    let at = 0;
    for (let index = 0; index < update.rectangles.length; index += 4) {
      const [x, y, width, height] = update.rectangles.subarray(index, index + 4);
      assert(format, 'rectangles without a format');
      const rowBytes = rowBytesOf(width!, format);
      for (let row = y!; row < y! + height!; row++, at += rowBytes) {
        const to = row * rowBytesOf(this.width, format) + rowBytesOf(x!, format);
        pixels.copy(this.#frame, to, at, at + rowBytes);
      }
    }
    assert.equal(at, pixels.length, 'every pixel belongs to a rectangle');
    return update;
  }

  /** Whether the frame is exactly `picture`. */
  shows(picture: Picture): boolean {
    const { width, height, format, stride, bytes } = picture;
    if (width !== this.width || height !== this.height || format.fourcc !== this.fourcc)
      return false;
    const rowBytes = rowBytesOf(width, format);
    for (let y = 0; y < height; y++) {
      const guest = bytes.subarray(y * stride, y * stride + rowBytes);
      if (Buffer.compare(guest, this.#frame.subarray(y * rowBytes, (y + 1) * rowBytes)) !== 0)
        return false;
    }
    return true;
  }

  #resize({ width, height, fourcc }: Update): void {
    if (width === this.width && height === this.height && fourcc === this.fourcc) return;
    Object.assign(this, { width, height, fourcc });
    const format = pixelFormat(fourcc);
    this.#frame = Buffer.alloc(format ? rowBytesOf(width, format) * height : 0);
  }
}
