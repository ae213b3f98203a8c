import assert from 'node:assert/strict';
import { test } from 'node:test';
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
} from '../../src/display/pixel-format.ts';
import { toRgba } from '../../src/outputs/convert.ts';

/** The RGBA bytes of one row of `width` pixels given as guest bytes, placed `offset` bytes into a buffer. */
function convertRow(format: PixelFormat, guest: number[], width: number, offset = 0): number[] {
  const bytes = new Uint8Array(offset + guest.length).subarray(offset);
  bytes.set(guest);
  const rgba = new Uint32Array(width);
  toRgba({ width, height: 1, stride: guest.length, format, bytes }, rgba);
  return [...new Uint8Array(rgba.buffer)];
}

test('32-bit pixels keep every channel and become opaque', () => {
  for (const format of [XRGB8888, ARGB8888]) {
    assert.deepEqual(
      convertRow(format, [3, 2, 1, 0, 255, 128, 0, 77], 2),
      [1, 2, 3, 255, 0, 128, 255, 255],
    );
  }
});

test('24-bit pixels keep every channel', () => {
  assert.deepEqual(convertRow(RGB888, [3, 2, 1, 6, 5, 4], 2), [1, 2, 3, 255, 4, 5, 6, 255]);
});

test('every 16-bit pixel widens to the nearest of its channel: full is 255, zero is 0, steps are even', () => {
  const layouts: [PixelFormat, number, number, number][] = [
    [RGB565, 5, 6, 5],
    [XRGB1555, 5, 5, 5],
    [ARGB1555, 5, 5, 5],
    [XRGB4444, 4, 4, 4],
    [ARGB4444, 4, 4, 4],
  ];
  for (const [format, red, green, blue] of layouts) {
    const guest = Uint16Array.from({ length: 0x1_0000 }, (_, pixel) => pixel);
    const rgba = new Uint32Array(0x1_0000);
    const bytes = new Uint8Array(guest.buffer);
    toRgba({ width: 256, height: 256, stride: 512, format, bytes }, rgba);
    const out = new Uint8Array(rgba.buffer);
    const nearest = (value: number, bits: number) => {
      const top = (1 << bits) - 1;
      return ((value & top) * 255) / top;
    };
    for (let pixel = 0; pixel < 0x1_0000; pixel++) {
      const expected = [
        nearest(pixel >>> (green + blue), red),
        nearest(pixel >>> blue, green),
        nearest(pixel, blue),
      ];
      for (const [channel, value] of expected.entries()) {
        const error = Math.abs(out[pixel * 4 + channel]! - value);
        assert(error < 1, `${format.name} ${pixel} channel ${channel}`);
        if (value === 0 || value === 255) assert.equal(error, 0);
      }
      assert.equal(out[pixel * 4 + 3], 255);
    }
  }
});

test('YUYV: black, white, grey and the primary colours of BT.601', () => {
  const pair = (y: number, u: number, v: number) => [y, u, y, v];
  const colour = (y: number, u: number, v: number) =>
    convertRow(YUYV, pair(y, u, v), 2).slice(0, 4);
  assert.deepEqual(colour(16, 128, 128), [0, 0, 0, 255]);
  assert.deepEqual(colour(235, 128, 128), [255, 255, 255, 255]);
  assert.deepEqual(colour(126, 128, 128), [128, 128, 128, 255]);
  assert.deepEqual(colour(82, 90, 240), [255, 1, 0, 255]);
  assert.deepEqual(colour(41, 240, 110), [0, 0, 255, 255]);
});

test('both pixels of a YUYV pair share their colour and keep their own brightness; an odd last one is grey', () => {
  const row = convertRow(YUYV, [16, 128, 235, 128, 126, 128], 3);
  assert.deepEqual(row, [0, 0, 0, 255, 255, 255, 255, 255, 128, 128, 128, 255]);
});

test('rows that begin at odd places convert the same', () => {
  for (const offset of [1, 2, 3]) {
    assert.deepEqual(convertRow(XRGB8888, [3, 2, 1, 0], 1, offset), [1, 2, 3, 255]);
    assert.deepEqual(convertRow(RGB565, [0x1f, 0xf8], 1, offset), [255, 0, 255, 255]);
  }
});

test('padding between rows is skipped', () => {
  const bytes = Uint8Array.of(3, 2, 1, 9, 8, 8, 8, 8, 6, 5, 4, 9);
  const rgba = new Uint32Array(2);
  toRgba({ width: 1, height: 2, stride: 8, format: XRGB8888, bytes }, rgba);
  assert.deepEqual([...new Uint8Array(rgba.buffer)], [1, 2, 3, 255, 4, 5, 6, 255]);
});

test('too few bytes or too little room are refused', () => {
  const bytes = new Uint8Array(7);
  const pixels = { width: 2, height: 1, stride: 8, format: XRGB8888, bytes };
  assert.throws(() => toRgba(pixels, new Uint32Array(2)), RangeError);
  assert.throws(
    () => toRgba({ ...pixels, bytes: new Uint8Array(8) }, new Uint32Array(1)),
    RangeError,
  );
});
