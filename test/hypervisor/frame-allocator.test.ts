import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Extent, FrameAllocator, runsOf } from '../../src/hypervisor/frame-allocator.ts';

const FRAMES = 64;

test('a request that fits a run gets one run, the lowest; otherwise the fewest pieces', () => {
  const allocator = new FrameAllocator({ start: 1, count: 100 });
  const [first, second, third] = [10, 20, 30].map((count) => allocator.allocate(count)![0]!);
  allocator.release(first!);
  allocator.release(third!);
  assert.deepEqual(allocator.allocate(15), [{ start: 31, count: 15 }]);
  assert.deepEqual(allocator.allocate(8), [{ start: 1, count: 8 }]);
  allocator.release(second!);
  assert.deepEqual(allocator.allocate(60), [
    { start: 9, count: 5 },
    { start: 46, count: 55 },
  ]);
});

test('freeing twice is noticed', () => {
  const allocator = new FrameAllocator({ start: 1, count: 10 });
  const [extent] = allocator.allocate(4)!;
  allocator.release(extent!);
  assert.throws(() => allocator.release(extent!), /freed twice/);
});

test('whatever is allocated and released, frames are handed out once and none is lost', () => {
  const action = fc.oneof(
    fc.record({ allocate: fc.integer({ min: 1, max: FRAMES }) }),
    fc.record({ release: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const allocator = new FrameAllocator({ start: 1, count: FRAMES });
      const taken: Extent[] = [];
      const used = new Set<number>();
      for (const act of actions) {
        if ('allocate' in act) {
          const extents = allocator.allocate(act.allocate);
          assert.equal(extents !== undefined, act.allocate <= FRAMES - used.size);
          for (const { start, count } of extents ?? []) {
            for (let frame = start; frame < start + count; frame++) {
              assert(frame >= 1 && frame <= FRAMES && !used.has(frame));
              used.add(frame);
            }
          }
          taken.push(...(extents ?? []));
        } else if (taken.length > 0) {
          const [extent] = taken.splice(act.release % taken.length, 1);
          for (let index = 0; index < extent!.count; index++) used.delete(extent!.start + index);
          allocator.release(extent!);
        }
        assert.equal(allocator.free, FRAMES - used.size);
      }
      for (const extent of taken) allocator.release(extent);
      assert.deepEqual(allocator.allocate(FRAMES), [{ start: 1, count: FRAMES }]);
    }),
  );
});

test('runs are found in the order given, and frame 0 separates them', () => {
  assert.deepEqual(
    [...runsOf(Uint32Array.of(7, 8, 0, 9, 3, 4, 5, 0, 0))],
    [
      { start: 7, count: 2, index: 0 },
      { start: 9, count: 1, index: 3 },
      { start: 3, count: 3, index: 4 },
    ],
  );
});
