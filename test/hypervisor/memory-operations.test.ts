import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FrameAllocator } from '../../src/hypervisor/frame-allocator.ts';
import type { DomainLimits, HostedDomain } from '../../src/hypervisor/hosted-domain.ts';
import { HypercallTable } from '../../src/hypervisor/hypercalls.ts';
import { Hypervisor } from '../../src/hypervisor/hypervisor.ts';
import type { AllocationFault } from '../../src/hypervisor/machine-memory.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { DOM0 } from '../../src/xen/ids.ts';

const MACHINE_FRAMES = 4096;
const ANYWHERE = 0;

/** One guest's hypercalls. */
class Bench implements Disposable {
  readonly hypervisor: Hypervisor;
  readonly guest: HostedDomain;
  readonly calls: HypercallTable;

  constructor(limits: Partial<DomainLimits> = {}, fault?: AllocationFault) {
    this.hypervisor = new Hypervisor({
      runtime: new VirtualRuntime(1),
      machineFrames: MACHINE_FRAMES,
      ...(fault && { allocationFault: fault }),
    });
    this.guest = this.hypervisor.createDomain({ name: 'guest', limits });
    this.calls = new HypercallTable(this.hypervisor, this.guest);
  }

  get owned(): number {
    return this.hypervisor.memory.ownedBy(this.guest.domid);
  }

  increase(extents: number, extentOrder: number, addressBits = ANYWHERE) {
    return this.calls.increase({ extents, extentOrder, addressBits });
  }

  /** Frames that are no two together. */
  scattered(count: number): Uint32Array {
    const { frames } = this.increase(2 * count, 0);
    this.calls.decrease({ frames: frames.filter((_, index) => index % 2 === 0), extentOrder: 0 });
    return frames.filter((_, index) => index % 2 === 1);
  }

  [Symbol.dispose](): void {
    this.hypervisor[Symbol.dispose]();
    assert.equal(this.hypervisor.memory.freeFrames, MACHINE_FRAMES - 1);
  }
}

function failsWith(errnoName: string) {
  return (error: unknown) => error instanceof SysError && error.errnoName === errnoName;
}

test('extents are aligned, consecutive and zeroed, and go back whole', () => {
  using bench = new Bench();
  const { frames, reason } = bench.increase(3, 4);
  assert.deepEqual([frames.length, reason, bench.owned], [3, '', 48]);
  assert(frames.every((frame) => frame % 16 === 0));
  const window = bench.calls.openWindow({ frames: Uint32Array.of(frames[0]!, frames[0]! + 15) });
  bench.calls.closeWindow({ window: window.window });
  assert.equal(bench.calls.decrease({ frames: frames.slice(1), extentOrder: 4 }), 2);
  assert.equal(bench.owned, 16);
  const stale = Uint32Array.of(frames[0]!, frames[1]!, frames[0]!);
  assert.equal(
    bench.calls.decrease({ frames: stale, extentOrder: 4 }),
    1,
    'up to the first bad one',
  );
  assert.equal(bench.owned, 0);
});

test('an extent of which a page was given away cannot be given back as a whole', () => {
  using bench = new Bench();
  const { frames } = bench.increase(1, 3);
  bench.calls.decrease({ frames: Uint32Array.of(frames[0]! + 5), extentOrder: 0 });
  assert.equal(bench.calls.decrease({ frames, extentOrder: 3 }), 0);
  assert.equal(bench.owned, 7);
});

test('as many extents as there are: the domain’s limit, the machine, the order, the address', () => {
  using bench = new Bench({ maxFrames: 100 });
  const limited = bench.increase(10, 4);
  assert.deepEqual([limited.frames.length, bench.owned], [6, 96]);
  assert.match(limited.reason, /6 of 10 extents of 16 pages: domain 1 has 96 of its 100 pages/);
  assert.equal(bench.increase(10, 0).frames.length, 4);
  assert.equal(bench.increase(1, 10).frames.length, 0);
  assert.match(bench.increase(1, 10).reason, /order 10, where 9 is the limit/);
  assert.throws(() => bench.increase(1, 0, 12), failsWith('EINVAL'));

  using small = new Bench();
  const low = small.increase(100, 0, 18);
  assert(low.frames.length < 64 && low.frames.every((frame) => frame < 64));
  assert.match(low.reason, /below 2\^18/);
  assert.equal(small.increase(1, 0, 18).frames.length, 0);
  const all = small.increase(8, 9);
  assert.equal(all.frames.length, 7, 'the first frames of the machine are taken');
  assert.match(all.reason, /the machine has \d+ free frames/);
});

test('a fault of the n-th allocation leaves what was done before it', () => {
  let until = Infinity;
  using bench = new Bench({}, ({ owner }) => owner !== DOM0 && owner < 10 && --until < 0);
  until = 2;
  assert.equal(bench.increase(5, 3).frames.length, 2);
  assert.equal(bench.owned, 16);
  until = 0;
  const { frames, reason } = bench.increase(1, 0);
  assert.deepEqual([frames.length, reason === ''], [0, false]);
  until = Infinity;
});

test('an exchange makes one extent of scattered frames, and the domain is as large as before', () => {
  using bench = new Bench({ maxFrames: 40 });
  const frames = bench.scattered(16);
  const owned = bench.owned;
  const request = { frames, inOrder: 0, outOrder: 3, addressBits: ANYWHERE };
  const { exchanged, frames: extents } = bench.calls.exchange(request);
  assert.deepEqual([exchanged, extents.length, bench.owned], [16, 2, owned]);
  assert(extents.every((frame) => frame % 8 === 0));
  assert.equal(bench.calls.decrease({ frames: frames.slice(0, 1), extentOrder: 0 }), 0);
  const back = bench.calls.exchange({
    frames: extents,
    inOrder: 3,
    outOrder: 0,
    addressBits: ANYWHERE,
  });
  assert.deepEqual([back.exchanged, back.frames.length, bench.owned], [2, 16, owned]);
});

test('an exchange is done extent by extent, each as a whole: what is mapped or foreign stops it', () => {
  using bench = new Bench();
  const frames = bench.scattered(12);
  const owned = bench.owned;
  const window = bench.calls.openWindow({ frames: frames.slice(6, 7) });
  const request = { frames, inOrder: 0, outOrder: 2, addressBits: ANYWHERE };
  const partial = bench.calls.exchange(request);
  assert.deepEqual([partial.exchanged, partial.frames.length, bench.owned], [4, 1, owned]);
  assert.match(partial.reason, new RegExp(`frame ${frames[6]} is mapped`));
  bench.calls.closeWindow({ window: window.window });
  assert.equal(bench.calls.exchange({ ...request, frames: frames.slice(4) }).exchanged, 8);
  const twice = bench.scattered(4);
  twice[3] = twice[0]!;
  assert.equal(bench.calls.exchange({ ...request, frames: twice }).exchanged, 0);
  const [foreign] = bench.hypervisor.memory.allocate(DOM0, 1)!;
  twice[3] = foreign!;
  assert.equal(bench.calls.exchange({ ...request, frames: twice }).exchanged, 0);
  const size = () => bench.calls.exchange({ ...request, frames: twice.slice(1) });
  assert.throws(size, failsWith('EINVAL'));
  assert.throws(() => bench.calls.exchange({ ...request, outOrder: 10 }), failsWith('EPERM'));
});

test('an exchange that the machine cannot serve changes nothing', () => {
  let refusing = false;
  using bench = new Bench({}, ({ frames }) => refusing && frames === 4);
  const frames = bench.scattered(4);
  const before = bench.hypervisor.memory.freeFrames;
  refusing = true;
  const request = { frames, inOrder: 0, outOrder: 2, addressBits: ANYWHERE };
  assert.equal(bench.calls.exchange(request).exchanged, 0);
  assert.equal(bench.hypervisor.memory.freeFrames, before);
  const low = bench.calls.exchange({ ...request, outOrder: 0, addressBits: 13 });
  assert.equal(low.exchanged, 0, 'no frame that low is free');
});

test('aligned runs: whatever is taken and given back, each is whole, and one is found when there is one', () => {
  const FRAMES = 64;
  const action = fc.oneof(
    fc.record({
      order: fc.integer({ min: 0, max: 5 }),
      below: fc.option(fc.integer({ min: 1, max: FRAMES })),
    }),
    fc.record({ release: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const allocator = new FrameAllocator({ start: 1, count: FRAMES });
      const taken: { start: number; count: number }[] = [];
      const used = new Set<number>();
      const isFree = (start: number, count: number, below: number) =>
        start >= 1 &&
        start + count <= Math.min(FRAMES + 1, below) &&
        Array.from({ length: count }, (_, index) => start + index).every((each) => !used.has(each));
      for (const act of actions) {
        if ('order' in act) {
          const count = 2 ** act.order;
          const below = act.below ?? Infinity;
          const starts = Array.from({ length: FRAMES }, (_, index) => index * count);
          const expected = starts.find((start) => isFree(start, count, below));
          const start = allocator.allocateAligned({ order: act.order, below });
          assert.equal(start, expected, 'the lowest there is');
          if (start === undefined) continue;
          for (let frame = start; frame < start + count; frame++) used.add(frame);
          taken.push({ start, count });
        } else if (taken.length > 0) {
          const [extent] = taken.splice(act.release % taken.length, 1);
          for (let index = 0; index < extent!.count; index++) used.delete(extent!.start + index);
          allocator.release(extent!);
        }
        assert.equal(allocator.free, FRAMES - used.size);
      }
    }),
  );
});

test('pieces below a limit: all that lie there can be had, and not one more', () => {
  const allocator = new FrameAllocator({ start: 1, count: 100 });
  assert.deepEqual(allocator.allocate(5, { below: 11 }), [{ start: 1, count: 5 }]);
  assert.equal(allocator.allocate(6, { below: 11 }), undefined);
  assert.deepEqual(allocator.allocate(5, { below: 11 }), [{ start: 6, count: 5 }]);
  assert.equal(allocator.allocate(1, { below: 11 }), undefined);
  assert.equal(allocator.free, 90);
});
