import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MachineMemory } from '../../src/hypervisor/machine-memory.ts';
import { Mapping } from '../../src/posix/mapping.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { DOM0, gref } from '../../src/xen/ids.ts';
import { refuse, refuseToShow } from './no-mappings.ts';
import { onMachine } from './world.ts';

const noMemory = (error: unknown) => error instanceof SysError && error.errnoName === 'ENOMEM';

test('G2: when the system refuses the n-th mmap of a mapping, everything before it is undone', (context) =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    const shared = await alice.grants.share({ domid: DOM0, pages: 20, writable: true });
    const refs = [...shared.refs].reverse();
    for (const fails of [0, 1, 7, 19]) {
      let calls = 0;
      const { place } = Mapping.prototype;
      const mocked = context.mock.method(
        Mapping.prototype,
        'place',
        function (this: Mapping, ...args: Parameters<typeof place>) {
          return calls++ === fails ? refuse() : place.apply(this, args);
        },
      );
      const mapping = dom0.foreign.map({ domid: alice.domid, refs, writable: true });
      await assert.rejects(mapping, noMemory);
      mocked.mock.restore();
      const [zero, one] = hypervisor.books().domains;
      assert.deepEqual([zero!.maptrackUsed, zero!.windows, one!.grantsMapped], [0, 0, 0]);
    }
    const mapping = await dom0.foreign.map({ domid: alice.domid, refs, writable: true });
    assert.equal(mapping.pages, 20);
  }));

test('G2: when the system refuses to show new pages, nobody has them', (context) =>
  onMachine(async ({ guest, hypervisor }) => {
    const alice = guest('alice');
    const free = hypervisor.memory.freeFrames;
    const restore = refuseToShow(context, MachineMemory.prototype);
    const request = { domid: DOM0, pages: 20, writable: true };
    await assert.rejects(alice.grants.share(request), noMemory);
    await assert.rejects(alice.grants.share({ ...request, pages: 600 }), noMemory);
    assert.throws(() => hypervisor.createDomain({ name: 'unlucky' }), noMemory);
    restore();
    assert.equal(hypervisor.memory.freeFrames, free);
    await alice.grants.share({ ...request, pages: 600 });
  }));

test('G2: when frames or the view of a buffer cannot be had, nothing is taken and the pool is whole', (context) => {
  let allowed = Infinity;
  return onMachine(
    async ({ dom0, guest, hypervisor }) => {
      const { domid } = guest('alice');
      const owned = () => hypervisor.memory.ownedBy(DOM0);
      for (const contiguity of ['none', 'device', 'host'] as const) {
        allowed = 0;
        await assert.rejects(dom0.memory.allocate({ pages: 5, contiguity }), noMemory);
        await assert.rejects(dom0.memory.createPool({ domid, pages: 5 }), noMemory);
        allowed = Infinity;
        assert.equal(owned(), 0);
        const restore = refuseToShow(context, MachineMemory.prototype);
        await assert.rejects(dom0.memory.allocate({ pages: 5, contiguity }), noMemory);
        restore();
        assert.equal(owned(), 0);
      }
      const pool = await dom0.memory.createPool({ domid, pages: 5 });
      const restore = refuseToShow(context, MachineMemory.prototype);
      await assert.rejects(pool.allocate(3), noMemory);
      restore();
      assert.equal(pool.freePages, 5);
      await (await pool.allocate(5)).free();
      await pool[Symbol.asyncDispose]();
      assert.equal(owned(), 0);
    },
    { fault: ({ owner }) => owner === DOM0 && --allowed < 0 },
  );
});

test('windows are bounded for each domain, and closing some makes room', () =>
  onMachine(async ({ dom0, guest }) => {
    const alice = guest('alice', { maxGrantFrames: 64 });
    const request = { domid: DOM0, pages: 1, writable: false };
    const shared = await alice.grants.share(request);
    const map = () => dom0.foreign.map({ domid: alice.domid, refs: shared.refs, writable: false });
    const own = await Promise.all(
      Array.from({ length: 8192 }, () => dom0.grants.share({ ...request, domid: alice.domid })),
    );
    await assert.rejects(map(), noMemory);
    await assert.rejects(dom0.grants.share({ ...request, domid: alice.domid }), noMemory);
    await own.pop()![Symbol.asyncDispose]();
    await map();
  }));

test('G2: a full maptrack is the want of room that it is, with the remedy, and nothing stays mapped', () =>
  onMachine(
    async ({ dom0, guest, hypervisor }) => {
      const { domid, grants } = guest('alice');
      const { refs } = await grants.share({ domid: DOM0, pages: 200, writable: true });
      const noRoom = (error: unknown) => noMemory(error) && /max_maptrack_frames/.test(`${error}`);
      const mapped = () => hypervisor.books().domains.map((each) => each.maptrackUsed)[0];
      const map = () => dom0.foreign.map({ domid, refs, writable: false });
      const first = await map();
      await assert.rejects(map(), noRoom);
      await assert.rejects(dom0.foreign.export({ domid, refs, caching: 'cached' }), noRoom);
      assert.equal(mapped(), 200);
      // A grant that is bad before the room ends is the granter's doing.
      const bad = [refs[0]!, gref(7777), ...refs];
      const request = { domid, refs: bad, writable: false };
      await assert.rejects(dom0.foreign.map(request), /number 1 .*GNTST_bad_gntref/);
      await first[Symbol.asyncDispose]();
      assert.equal(mapped(), 0);
      await (await map())[Symbol.asyncDispose]();
    },
    { dom0Limits: { maxMaptrackFrames: 1 } },
  ));

test('unmapping that the system refuses for a while is not over before it has succeeded', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const { domid, grants } = guest('alice');
    const { refs } = await grants.share({ domid: DOM0, pages: 3, writable: true });
    const mapped = () => hypervisor.books().domains[0]!.maptrackUsed;
    const mapping = await dom0.foreign.map({ domid, refs, writable: false });
    const exported = await dom0.foreign.export({ domid, refs, caching: 'cached' });
    assert.equal(mapping.bytes.length, 3 * 4096);
    const { [Symbol.dispose]: revoke } = Mapping.prototype;
    Mapping.prototype[Symbol.dispose] = refuse;
    try {
      for (const _ of [1, 2]) await assert.rejects(mapping[Symbol.asyncDispose](), noMemory);
      assert.throws(() => mapping.bytes, /unmapped/);
      assert.equal(mapped(), 6);
      // A dma-buf is for devices alone: there is no view of it to revoke.
      exported.close();
      assert.equal(await exported.released(), true);
      assert.equal(mapped(), 3);
    } finally {
      Mapping.prototype[Symbol.dispose] = revoke;
    }
    await mapping[Symbol.asyncDispose]();
    await mapping[Symbol.asyncDispose]();
    assert.equal(mapped(), 0);
  }));
