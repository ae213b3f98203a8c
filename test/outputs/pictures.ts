// Pictures for the tests of outputs: plain bytes that a test draws on, as a guest would on its pages.

import type { ConnectorInfo, Picture } from '../../src/display/output.ts';
import { type PixelFormat, strideOf, XRGB8888 } from '../../src/display/pixel-format.ts';
import { SeededRandom } from '../../src/runtime/random.ts';
import { domId } from '../../src/xen/ids.ts';

export interface PictureOptions {
  readonly width: number;
  readonly height: number;
  readonly format?: PixelFormat;
  /** Bytes between rows beyond what the Linux frontend assumes. */
  readonly padding?: number;
}

/** A zeroed picture of its own, the last row ending with its last pixel. */
export function blankPicture({
  width,
  height,
  format = XRGB8888,
  padding = 0,
}: PictureOptions): Picture {
  const stride = strideOf(width, format.bitsPerPixel) + padding;
  const rowBytes = (width * format.bitsPerPixel) >>> 3;
  const bytes = new Uint8Array((height - 1) * stride + rowBytes);
  return { width, height, stride, format, bytes, memory: undefined, offset: 0 };
}

/** A picture full of noise that follows from `seed`. */
export function noisyPicture(seed: number, options: PictureOptions): Picture {
  const picture = blankPicture(options);
  picture.bytes.set(new SeededRandom(seed).bytes(picture.bytes.length));
  return picture;
}

export function connectorInfo({
  domid = 1,
  index = 0,
  width = 640,
  height = 480,
} = {}): ConnectorInfo {
  return { domid: domId(domid), index, uniqueId: `screen-${domid}-${index}`, width, height };
}
