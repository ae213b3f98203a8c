import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Picture } from '../../src/display/output.ts';
import { RGB565, RGB888, XRGB8888 } from '../../src/display/pixel-format.ts';
import { DamageTracker, rowBytesOf } from '../../src/outputs/damage.ts';
import { MAX_RECTANGLES, Rectangles } from '../../src/outputs/rectangles.ts';
import { blankPicture, noisyPicture } from './pictures.ts';

/** A viewer as simple as can be: keeps a frame and applies what the tracker says is newer. */
class NaiveViewer {
  readonly #rectangles = new Rectangles();
  #frame = new Uint8Array(0);
  #shape = '';
  seen = 0;

  update(tracker: DamageTracker): void {
    const { width, height, format } = tracker;
    const shape = `${width}x${height} ${format?.name}`;
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#frame = new Uint8Array(format ? rowBytesOf(width, format) * height : 0);
      this.seen = 0;
    }
    tracker.collect(this.seen, this.#rectangles);
    this.seen = tracker.generation;
    if (!format) return;
    const packed = Buffer.alloc(tracker.packedBytes(this.#rectangles));
    assert.equal(tracker.pack(this.#rectangles, packed, 0), packed.length);
    let at = 0;
    for (let index = 0; index < this.#rectangles.count; index++) {
      const rowBytes = rowBytesOf(this.#rectangles.width(index), format);
      const left = rowBytesOf(this.#rectangles.x(index), format);
      const top = this.#rectangles.y(index);
      for (let y = top; y < top + this.#rectangles.height(index); y++, at += rowBytes) {
        this.#frame.set(packed.subarray(at, at + rowBytes), y * rowBytesOf(width, format) + left);
      }
    }
  }

  /** Asserts that the viewer's frame is `picture`, pixel by pixel. */
  sees(picture: Picture): void {
    const rowBytes = rowBytesOf(picture.width, picture.format);
    for (let y = 0; y < picture.height; y++) {
      const guest = picture.bytes.subarray(y * picture.stride, y * picture.stride + rowBytes);
      const mine = this.#frame.subarray(y * rowBytes, (y + 1) * rowBytes);
      assert.equal(Buffer.compare(guest, mine), 0, `row ${y}`);
    }
  }
}

const size = fc.record({
  width: fc.integer({ min: 1, max: 300 }),
  height: fc.integer({ min: 1, max: 200 }),
  padding: fc.constantFrom(0, 4, 256),
  format: fc.constantFrom(XRGB8888, RGB565, RGB888),
});

/** Steps of a guest that draws rectangles and of two viewers that look now and then. */
const step = fc.oneof(
  fc.record({
    kind: fc.constant('draw' as const),
    place: fc.tuple(fc.nat(), fc.nat(), fc.nat({ max: 90 }), fc.nat({ max: 90 })),
    value: fc.integer({ min: 0, max: 255 }),
  }),
  fc.record({ kind: fc.constant('look' as const), viewer: fc.integer({ min: 0, max: 1 }) }),
  fc.record({ kind: fc.constant('switch' as const), seed: fc.nat({ max: 3 }) }),
);

function draw(
  picture: Picture,
  [x, y, width, height]: [number, number, number, number],
  value: number,
): void {
  const left = rowBytesOf(x % picture.width, picture.format);
  const rowBytes = rowBytesOf(picture.width, picture.format);
  const right = Math.min(rowBytes, left + rowBytesOf(width + 1, picture.format));
  const top = y % picture.height;
  for (let row = top; row < Math.min(picture.height, top + height + 1); row++) {
    picture.bytes.fill(value, row * picture.stride + left, row * picture.stride + right);
  }
}

test('viewers that look at different times each end up with exactly the guest’s pixels', () => {
  fc.assert(
    fc.property(size, fc.array(step, { maxLength: 30 }), (options, steps) => {
      let picture = blankPicture(options);
      const tracker = new DamageTracker();
      const viewers = [new NaiveViewer(), new NaiveViewer()];
      for (const action of steps) {
        if (action.kind === 'draw') draw(picture, action.place, action.value);
        if (action.kind === 'switch') picture = noisyPicture(action.seed, options);
        if (action.kind === 'look') {
          tracker.compare(picture);
          viewers[action.viewer]!.update(tracker);
          viewers[action.viewer]!.sees(picture);
        }
      }
      tracker.compare(picture);
      for (const viewer of viewers) {
        viewer.update(tracker);
        viewer.sees(picture);
      }
    }),
    { numRuns: 300 },
  );
});

test('nothing changed: no new generation, nothing copied, nothing to send', () => {
  const tracker = new DamageTracker();
  const picture = noisyPicture(1, { width: 200, height: 100, padding: 8 });
  assert.equal(tracker.compare(picture), true);
  const { generation, bytesCopied } = tracker;
  assert.equal(bytesCopied, 200 * 100 * 4);
  assert.equal(tracker.compare(picture), false);
  assert.equal(tracker.generation, generation);
  assert.equal(tracker.bytesCopied, bytesCopied);
  const rectangles = new Rectangles();
  tracker.collect(generation, rectangles);
  assert.equal(rectangles.count, 0);
});

test('one changed pixel costs one tile', () => {
  const tracker = new DamageTracker();
  const picture = noisyPicture(1, { width: 640, height: 480 });
  tracker.compare(picture);
  const seen = tracker.generation;
  picture.bytes[100 * picture.stride + 200 * 4]! ^= 1;
  assert.equal(tracker.compare(picture), true);
  const rectangles = new Rectangles();
  tracker.collect(seen, rectangles);
  assert.deepEqual([...rectangles.words], [192, 64, 64, 64]);
});

test('a whole changed frame is one rectangle', () => {
  const tracker = new DamageTracker();
  const options = { width: 1000, height: 700 };
  tracker.compare(noisyPicture(1, options));
  const seen = tracker.generation;
  assert.equal(tracker.compare(noisyPicture(2, options)), true);
  const rectangles = new Rectangles();
  tracker.collect(seen, rectangles);
  assert.deepEqual([...rectangles.words], [0, 0, 1000, 700]);
});

test('a picture of another size, another format or none replaces everything', () => {
  const tracker = new DamageTracker();
  const viewer = new NaiveViewer();
  for (const picture of [
    noisyPicture(1, { width: 65, height: 65 }),
    noisyPicture(2, { width: 130, height: 20 }),
    noisyPicture(3, { width: 130, height: 20, format: RGB565 }),
  ]) {
    assert.equal(tracker.compare(picture), true);
    viewer.update(tracker);
    viewer.sees(picture);
  }
  assert.equal(tracker.compare(undefined), true);
  assert.equal(tracker.compare(undefined), false);
  assert.equal(tracker.format, undefined);
});

test('the list of rectangles is bounded: what does not fit becomes the one around all', () => {
  const rectangles = new Rectangles();
  for (let index = 0; index <= MAX_RECTANGLES; index++) rectangles.add(index * 2, index * 2, 1, 1);
  assert.equal(rectangles.count, 1);
  const edge = MAX_RECTANGLES * 2 + 1;
  assert.deepEqual([...rectangles.words], [0, 0, edge, edge]);
});

test('bytes outside a marked tile are never copied, so a racing guest’s change there is found later', () => {
  const tracker = new DamageTracker();
  const picture = noisyPicture(1, { width: 256, height: 64 });
  tracker.compare(picture);
  const { bytesCopied } = tracker;
  picture.bytes[10 * picture.stride]! ^= 1;
  tracker.compare(picture);
  assert.equal(tracker.bytesCopied - bytesCopied, 64 * 4, 'one row of one tile');
});
