import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PNG } from 'pngjs';
import { RGB565, XRGB8888, YUYV } from '../../src/display/pixel-format.ts';
import { toRgba } from '../../src/outputs/convert.ts';
import { screenPng } from '../../src/outputs/image/png.ts';
import { Screen } from '../../src/outputs/screen.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { connectorInfo, noisyPicture } from './pictures.ts';

test('a PNG has exactly the pixels of the screen, in every kind of format', async () => {
  for (const format of [XRGB8888, RGB565, YUYV]) {
    const screen = new Screen(new VirtualRuntime(1), connectorInfo());
    const picture = noisyPicture(7, { width: 130, height: 70, format, padding: 12 });
    screen.show(picture);
    const file = await screenPng(screen);
    assert(file);
    const png = PNG.sync.read(file);
    const expected = new Uint32Array(130 * 70);
    toRgba(picture, expected);
    assert.deepEqual([png.width, png.height], [130, 70]);
    assert.equal(Buffer.compare(png.data, new Uint8Array(expected.buffer)), 0, format.name);
    assert.equal(screen.bytesCopied, 130 * 70 * 3);
  }
});

test('a blank screen has no PNG', async () => {
  const screen = new Screen(new VirtualRuntime(1), connectorInfo());
  assert.equal(await screenPng(screen), undefined);
});
