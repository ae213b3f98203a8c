import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  checkBuffer,
  checkFramebuffer,
  clipViewport,
  DIMENSION_MAX,
  inferStride,
} from '../../src/display/geometry.ts';
import { RGB565, RGB888, XRGB8888, YUYV } from '../../src/display/pixel-format.ts';
import { ProtocolViolation } from '../../src/runtime/errors.ts';

const FORMATS = [XRGB8888, RGB888, RGB565, YUYV];
const pages = (bytes: number) => Math.ceil(bytes / 4096) * 4096;

function violation(reason: string) {
  return (error: unknown) => error instanceof ProtocolViolation && error.reason === reason;
}

test('the length of a row follows from what each kind of frontend asks for', () => {
  const odd = { width: 1367, height: 769, bitsPerPixel: 16 };
  const rows = (stride: number) => inferStride({ ...odd, bufferBytes: stride * odd.height });
  assert.equal(rows(2734), 2734, 'Linux 6.12: bytes');
  assert.equal(rows(2736), 2736, 'whole words');
  const paged = (stride: number) => inferStride({ ...odd, bufferBytes: pages(stride * 769) });
  assert.equal(paged(2736), 2736, 'newer Linux: 8 bytes, whole pages');
  const wide = { width: 1367, height: 769, bitsPerPixel: 32 };
  assert.equal(inferStride({ ...wide, bufferBytes: pages(5472 * 769) }), 5472);
  assert.equal(inferStride({ ...wide, bufferBytes: 5468 * 769 }), 5468);
});

test('an unexplained size gives rows of whole words where they fit, of bytes where they do not', () => {
  const odd = { width: 3, height: 10, bitsPerPixel: 8 };
  assert.equal(inferStride({ ...odd, bufferBytes: 8192 }), 4);
  assert.equal(inferStride({ ...odd, bufferBytes: 31 }), 3);
});

test('property: for ordinary widths every convention gives the same row', () => {
  const dimension = fc.integer({ min: 1, max: 500 });
  fc.assert(
    fc.property(dimension, dimension, fc.constantFrom(16, 32), (eights, height, bitsPerPixel) => {
      const width = eights * 8;
      const stride = (width * bitsPerPixel) / 8;
      for (const bufferBytes of [stride * height, pages(stride * height)]) {
        assert.equal(inferStride({ width, height, bitsPerPixel, bufferBytes }), stride);
      }
    }),
  );
});

test('a buffer that is declared bigger than it is, or absurd, is refused (R5)', () => {
  const fits = { width: 640, height: 480, bitsPerPixel: 32, bufferBytes: 640 * 480 * 4 };
  checkBuffer(fits, 0);
  const tooSmall = violation('buffer-too-small');
  const bad = violation('bad-buffer-geometry');
  assert.throws(() => checkBuffer({ ...fits, bufferBytes: fits.bufferBytes - 1 }, 0), tooSmall);
  assert.throws(() => checkBuffer({ ...fits, bufferBytes: 1 }, 0), tooSmall);
  assert.throws(() => checkBuffer(fits, 4), tooSmall, 'pixels pushed over the end');
  assert.throws(() => checkBuffer(fits, 2), bad, 'unaligned data_ofs');
  assert.throws(() => checkBuffer(fits, 0xffff_fffc), tooSmall);
  for (const huge of [2 ** 31, 2 ** 32 - 1, DIMENSION_MAX + 1]) {
    assert.throws(() => checkBuffer({ ...fits, width: huge }, 0), bad);
    assert.throws(() => checkBuffer({ ...fits, height: huge }, 0), bad);
    assert.throws(() => checkBuffer({ ...fits, bitsPerPixel: huge }, 0), bad);
  }
  for (const bitsPerPixel of [1, 15, 24]) checkBuffer({ ...fits, bitsPerPixel }, 0);
  assert.throws(() => checkBuffer({ ...fits, bitsPerPixel: 33 }, 0), tooSmall);
  const imported = { width: 0, height: 0, bitsPerPixel: 0, bufferBytes: 4096 };
  checkBuffer(imported, 0);
  assert.throws(() => checkBuffer(imported, 4096), tooSmall);
});

test('property: an accepted framebuffer has every byte of it inside its buffer', () => {
  const dimension = fc.oneof(
    fc.integer({ min: 0, max: 5000 }),
    fc.constantFrom(2 ** 15, 2 ** 31, 2 ** 32 - 1),
  );
  const bytes = fc.integer({ min: 1, max: 2 ** 26 });
  fc.assert(
    fc.property(
      dimension,
      dimension,
      fc.constantFrom(...FORMATS),
      fc.integer({ min: 0, max: 30000 }),
      bytes,
      (width, height, format, stride, available) => {
        let used: number;
        try {
          used = checkFramebuffer({ width, height, format, stride }, available);
        } catch (error) {
          assert(error instanceof ProtocolViolation);
          return;
        }
        const lastByte = (height - 1) * stride + (width * format.bitsPerPixel) / 8;
        assert(used <= available && lastByte === used && width > 0 && height > 0);
        assert((width * format.bitsPerPixel) / 8 <= stride, 'rows do not overlap');
      },
    ),
    { numRuns: 1000 },
  );
});

test('a framebuffer needs a size, room, and whole pixel pairs for YUYV (R5)', () => {
  const ok = { width: 640, height: 480, stride: 2560, format: XRGB8888 };
  const all = 2560 * 480;
  assert.equal(checkFramebuffer(ok, all), all);
  const bad = violation('bad-framebuffer-geometry');
  const tooBig = violation('framebuffer-too-big');
  for (const value of [0, 2 ** 31, 2 ** 32 - 1]) {
    assert.throws(() => checkFramebuffer({ ...ok, width: value }, all), bad);
    assert.throws(() => checkFramebuffer({ ...ok, height: value }, all), bad);
  }
  assert.throws(() => checkFramebuffer(ok, all - 1), tooBig);
  assert.throws(() => checkFramebuffer({ ...ok, width: 641 }, all + 2560), tooBig);
  assert.throws(() => checkFramebuffer({ ...ok, format: YUYV, width: 641 }, all), bad);
  assert.equal(checkFramebuffer({ ...ok, height: 1 }, 2560), 2560);
});

test('a framebuffer beyond the connector is cut, not refused (trap 10, R7)', () => {
  const framebuffer = { width: 1024, height: 768, format: XRGB8888 };
  const connector = { width: 640, height: 480 };
  const clip = (viewport: Parameters<typeof clipViewport>[0]) =>
    clipViewport(viewport, { framebuffer, connector });
  const whole = { x: 0, y: 0, width: 1024, height: 768 };
  assert.deepEqual(clip(whole), { x: 0, y: 0, width: 640, height: 480 });
  assert.deepEqual(clip({ ...whole, x: 1000, y: 700 }), { x: 1000, y: 700, width: 24, height: 68 });
  assert.deepEqual(clip({ ...whole, width: 2 ** 32 - 1, x: 1 }).width, 640, 'x + w overflows');
  for (const outside of [{ x: 1024 }, { y: 768 }, { x: 2 ** 32 - 1 }, { y: 2 ** 31 }]) {
    assert.throws(() => clip({ ...whole, ...outside }), violation('viewport-outside'));
  }
});

test('property: a clipped viewport lies inside the framebuffer and the connector', () => {
  const size = fc.integer({ min: 1, max: 4000 });
  const any = fc.oneof(size, fc.nat(2 ** 32 - 1));
  fc.assert(
    fc.property(
      fc.record({ x: any, y: any, width: any, height: any }),
      fc.record({ width: size, height: size, format: fc.constantFrom(...FORMATS) }),
      fc.record({ width: size, height: size }),
      (viewport, framebuffer, connector) => {
        try {
          const { x, y, width, height } = clipViewport(viewport, { framebuffer, connector });
          assert(x + width <= framebuffer.width && y + height <= framebuffer.height);
          assert(width <= connector.width && height <= connector.height);
          assert(width > 0 && height > 0);
          const { pixelsPerUnit } = framebuffer.format;
          assert(x % pixelsPerUnit === 0 && width % pixelsPerUnit === 0);
        } catch (error) {
          assert(error instanceof ProtocolViolation, String(error));
        }
      },
    ),
    { numRuns: 1000 },
  );
});
