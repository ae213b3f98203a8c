// The interface of 2018, and a test for everything that its driver is known to have done wrong (marked
// "2018:").

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { GrantMapError, type SharedPages } from '../../src/xen/domain.ts';
import { DOM0, domId } from '../../src/xen/ids.ts';
import { accountedDomain } from '../../src/zcopy/accounted-domain.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { Ledger } from '../../src/zcopy/ledger.ts';
import { type DrmOptions, type DrmWorld, onDevice } from './drm-world.ts';
import { BROKEN, failing, intercepting, NO_ROOM, sysError, TestDevice } from './world.ts';

/** 64 x 48 pixels of 32 bits: three pages. */
const DUMB = { width: 64, height: 48, bpp: 32 };
const PAGES = 3;

function share(guest: GuestDomain, pages = PAGES, writable = true): Promise<SharedPages> {
  return guest.grants.share({ domid: DOM0, pages, writable });
}

function request({ domid }: GuestDomain, { refs }: { readonly refs: readonly number[] }) {
  return { num_grefs: refs.length, grefs: refs, otherend_id: domid, dumb: DUMB };
}

const on = (body: (world: DrmWorld) => Promise<void>, options?: DrmOptions) => () =>
  onDevice(body, options);

test(
  'a guest draws, a buffer of its pages is shown, and the guest learns when it is free',
  on(async ({ device, guest, run, mapped }) => {
    const alice = guest('alice');
    const shared = await share(alice);
    shared.bytes[5] = 42;
    const { dumb, wait_handle } = await run(device.dumbFromRefs(request(alice, shared)));
    assert.deepEqual(dumb, { ...DUMB, flags: 0, handle: 1, pitch: 256, size: 256 * 48 });
    assert.equal(wait_handle, 1);
    assert.equal(device.mapDumb(dumb.handle)[5], 42);
    assert.equal(device.mapDumb(dumb.handle).length, dumb.size);
    const gpu = new TestDevice().attach(device.primeHandleToBuffer(dumb.handle));
    const wait = { wait_handle, wait_to_ms: 100 };
    await assert.rejects(run(device.dumbWaitFree(wait)), sysError('ETIMEDOUT', /not closed/));
    const ending = device.gemClose(dumb.handle);
    await assert.rejects(run(device.dumbWaitFree(wait)), sysError('ETIMEDOUT', /imported/));
    assert.equal(ending.state, 'quarantined');
    gpu[Symbol.dispose]();
    await run(device.dumbWaitFree(wait));
    assert.equal(mapped(), 0);
    await assert.rejects(run(device.dumbWaitFree(wait)), sysError('ENOENT', /freed/));
  }),
);

test(
  'many may wait for one buffer, each with a time of its own, and for none',
  on(async ({ device, guest, run }) => {
    const alice = guest('alice');
    const { dumb, wait_handle } = await run(
      device.dumbFromRefs(request(alice, await share(alice))),
    );
    const gpu = new TestDevice().attach(device.primeHandleToBuffer(dumb.handle));
    device.gemClose(dumb.handle);
    const waits = [0, 50, 60_000].map((wait_to_ms) =>
      device.dumbWaitFree({ wait_handle, wait_to_ms }).then(
        () => 'freed',
        () => 'late',
      ),
    );
    assert.deepEqual(await run(Promise.all(waits.slice(0, 2))), ['late', 'late']);
    gpu[Symbol.dispose]();
    assert.equal(await run(waits[2]!), 'freed');
    const unknown = device.dumbWaitFree({ wait_handle: 7, wait_to_ms: 0 });
    await assert.rejects(unknown, sysError('ENOENT'));
    for (const wait_to_ms of [-1, 0.5, 2 ** 32, Number.NaN]) {
      await assert.rejects(device.dumbWaitFree({ wait_handle, wait_to_ms }), sysError('EINVAL'));
    }
  }),
);

test(
  'a GEM handle is used again, a wait handle never: it cannot mean another buffer',
  on(async ({ device, guest, run }) => {
    const alice = guest('alice');
    const first = await run(device.dumbFromRefs(request(alice, await share(alice))));
    const gpu = new TestDevice().attach(device.primeHandleToBuffer(1));
    device.gemClose(first.dumb.handle);
    const second = await run(device.dumbFromRefs(request(alice, await share(alice))));
    assert.deepEqual([second.dumb.handle, second.wait_handle], [1, 2]);
    const wait_to_ms = 10;
    device.gemClose(1);
    await run(device.dumbWaitFree({ wait_handle: 2, wait_to_ms }));
    const { wait_handle } = first;
    await assert.rejects(
      run(device.dumbWaitFree({ wait_handle, wait_to_ms })),
      sysError('ETIMEDOUT'),
    );
    const third = await run(device.dumbFromRefs(request(alice, await share(alice))));
    assert.equal(third.wait_handle, 3);
    gpu[Symbol.dispose]();
    await run(device.dumbWaitFree({ wait_handle, wait_to_ms }));
  }),
);

for (const { name, dumb } of [
  {
    name: '2018: a row whose bits overflow 32 bits',
    dumb: { width: 0x0800_0000, height: 1, bpp: 32 },
  },
  {
    name: 'a size that overflows 64 bits',
    dumb: { width: 2 ** 32 - 1, height: 2 ** 32 - 1, bpp: 64 },
  },
  { name: 'a size above the limit', dumb: { width: 8193, height: 8192, bpp: 32 } },
  { name: 'no rows', dumb: { ...DUMB, height: 0 } },
  { name: 'no columns', dumb: { ...DUMB, width: 0 } },
  { name: 'no bits', dumb: { ...DUMB, bpp: 0 } },
  { name: 'half a pixel', dumb: { ...DUMB, width: 0.5 } },
  { name: 'less than nothing', dumb: { ...DUMB, height: -48 } },
  { name: 'no number', dumb: { ...DUMB, bpp: Number.NaN } },
]) {
  test(
    `a geometry that is refused: ${name}`,
    on(async ({ device, guest, mapped }) => {
      const alice = guest('alice');
      const shared = await share(alice, 1);
      const bad = { ...request(alice, shared), dumb };
      await assert.rejects(device.dumbFromRefs(bad), sysError('EINVAL', /bits per pixel/));
      const none = { ...bad, num_grefs: 0, grefs: [] };
      await assert.rejects(device.dumbFromRefs(none), sysError('EINVAL', /bits per pixel/));
      assert.equal(mapped(), 0);
    }),
  );
}

test(
  'a row of bits that are no whole bytes is rounded up',
  on(async ({ device, guest, run }) => {
    const alice = guest('alice');
    const shared = await share(alice, 1);
    const dumb = { width: 13, height: 3, bpp: 1, flags: 5 };
    const made = await run(device.dumbFromRefs({ ...request(alice, shared), dumb }));
    assert.deepEqual(made.dumb, { ...dumb, handle: 1, pitch: 2, size: 6 });
    assert.equal(device.mapDumb(1).length, 6);
  }),
);

test(
  '2018: as many grants as the size has pages, no more and no fewer, and as many as are listed',
  on(async ({ device, guest, mapped }) => {
    const alice = guest('alice');
    const { refs } = await share(alice, 5);
    for (const count of [0, 1, PAGES - 1, PAGES + 1, 5]) {
      const bad = request(alice, { refs: refs.slice(0, count) });
      await assert.rejects(device.dumbFromRefs(bad), sysError('EINVAL', /has 3 pages/));
    }
    const short = { ...request(alice, { refs: refs.slice(0, 2) }), num_grefs: PAGES };
    await assert.rejects(device.dumbFromRefs(short), sysError('EINVAL', /3 grants, 2 listed/));
    const huge = { ...short, num_grefs: 2 ** 32 };
    await assert.rejects(device.dumbFromRefs(huge), sysError('EINVAL'));
    assert.equal(mapped(), 0);
  }),
);

test(
  'what is no grant and no domain is EINVAL, and so is a grant that cannot be mapped, which is named',
  on(async ({ device, guest, run, mapped }) => {
    const alice = guest('alice');
    const shared = await share(alice);
    const good = request(alice, shared);
    const [first, second] = shared.refs;
    for (const bad of [0, -1, 2 ** 32, 1.5, 400]) {
      const grefs = [first!, bad, second!];
      await assert.rejects(run(device.dumbFromRefs({ ...good, grefs })), sysError('EINVAL'));
    }
    const revoked = { ...good, grefs: [first!, second!, 400] };
    await assert.rejects(
      run(device.dumbFromRefs(revoked)),
      sysError('EINVAL', /grant 400 \(number 2 of the request\) cannot be mapped: GNTST_/),
    );
    for (const otherend_id of [-1, 0x7ff0, 2 ** 32 + alice.domid, 0.5]) {
      await assert.rejects(device.dumbFromRefs({ ...good, otherend_id }), sysError('EINVAL'));
    }
    await assert.rejects(
      run(device.dumbFromRefs({ ...good, otherend_id: 999 })),
      sysError('EINVAL'),
    );
    assert.equal(mapped(), 0);
    const { dumb, wait_handle } = await run(device.dumbFromRefs(good));
    assert.deepEqual([dumb.handle, wait_handle > 0], [1, true], 'no handle was lost');
  }),
);

for (const [call, failure] of [
  ['map', NO_ROOM],
  ['export', BROKEN],
] as const) {
  test(
    `2018: DUMB_FROM_REFS that fails at its "${call}" holds nothing: no mapping, no handle`,
    on(
      async ({ device, guest, run, mapped }) => {
        const alice = guest('alice');
        const shared = await share(alice);
        const made = device.dumbFromRefs(request(alice, shared));
        await assert.rejects(run(made), sysError(failure.errnoName));
        assert.equal(mapped(), 0);
        assert.throws(() => device.gemClose(1), sysError('EINVAL'));
        const wait = { wait_handle: 1, wait_to_ms: 0 };
        await assert.rejects(run(device.dumbWaitFree(wait)), sysError('ENOENT'));
      },
      { domain: (dom0) => failing(dom0, call, failure) },
    ),
  );
}

test(
  '2018: without a handle nothing is mapped, and no handle dangles',
  on(
    async ({ device, guest, run, mapped }) => {
      const alice = guest('alice');
      const shared = await share(alice);
      await run(device.dumbFromRefs(request(alice, shared)));
      const before = mapped();
      await assert.rejects(
        device.dumbFromRefs(request(alice, shared)),
        sysError('ENOMEM', /handle/),
      );
      assert.equal(mapped(), before);
      assert.throws(() => device.mapDumb(2), sysError('EINVAL'));
      device.gemClose(1);
      const again = await run(device.dumbFromRefs(request(alice, shared)));
      assert.equal(again.dumb.handle, 1);
    },
    { maxHandles: 1 },
  ),
);

test(
  'a guest that is over its budget is ENOMEM, as a machine without room is',
  on(
    async ({ device, guest, run, mapped }) => {
      const alice = guest('alice');
      const shared = await share(alice);
      const budgeted = device.dumbFromRefs(request(alice, shared));
      await assert.rejects(run(budgeted), sysError('ENOMEM', /over-budget-pages/));
      assert.equal(mapped(), 0);
    },
    {
      domain: (dom0) => {
        const budget = { ...DEFAULT_BUDGET, pages: PAGES - 1 };
        const account = new Ledger().open({ domid: domId(1), name: 'alice', budget });
        return accountedDomain(dom0, account);
      },
    },
  ),
);

test(
  'without maptrack entries it is ENOMEM, and what is mapped stays',
  on(
    async ({ device, guest, run, mapped }) => {
      const alice = guest('alice');
      const dumb = { width: 1024, height: 150, bpp: 32 };
      const shared = await share(alice, 150);
      const big = { ...request(alice, shared), dumb };
      const { dumb: first } = await run(device.dumbFromRefs(big));
      assert.throws(() => device.primeHandleToBuffer(first.handle), sysError('EOPNOTSUPP'));
      await assert.rejects(run(device.dumbFromRefs(big)), sysError('ENOMEM', /GNTST_no_space/));
      assert.equal(mapped(), 150);
    },
    { dom0Limits: { maxMaptrackFrames: 1 } },
  ),
);

test(
  'a read-only grant is shown and cannot be imported by other drivers, which says why',
  on(async ({ device, guest, run }) => {
    const alice = guest('alice');
    const shared = await share(alice, PAGES, false);
    shared.bytes[0] = 9;
    const { dumb } = await run(device.dumbFromRefs(request(alice, shared)));
    assert.equal(device.mapDumb(dumb.handle)[0], 9);
    assert.throws(
      () => device.primeHandleToBuffer(dumb.handle),
      sysError('EOPNOTSUPP', /GNTST_general_error/),
    );
  }),
);

test(
  'an imported buffer is granted, drawn into by the guest, and freed with its handle',
  on(async ({ device, dom0, guest, run, frames }) => {
    const alice = guest('alice');
    const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'host' });
    const handle = device.primeBufferToHandle(memory);
    assert.equal(device.primeBufferToHandle(memory), handle, 'imported already');
    assert.equal(device.primeHandleToBuffer(handle), memory);
    const to = { num_grefs: PAGES, otherend_id: alice.domid, handle };
    const { grefs } = await run(device.dumbToRefs(to));
    const mapping = await alice.foreign.map({ domid: DOM0, refs: grefs, writable: true });
    mapping.bytes[PAGE_SIZE] = 3;
    assert.equal(device.mapDumb(handle)[PAGE_SIZE], 3);
    const ending = device.gemClose(handle);
    const late = await run(ending.release({ timeoutMs: 100 }));
    assert(late.state === 'quarantined');
    assert.equal(late.holders[0]!.who, `domain ${alice.domid}`);
    assert.equal(frames(), PAGES, 'the guest has them still');
    await mapping[Symbol.asyncDispose]();
    await run(ending.released);
    assert.equal(frames(), 0);
  }),
);

test(
  '2018: DUMB_TO_REFS of a buffer of DUMB_FROM_REFS is refused',
  on(async ({ device, guest, run }) => {
    const alice = guest('alice');
    const { dumb } = await run(device.dumbFromRefs(request(alice, await share(alice))));
    const to = { num_grefs: PAGES, otherend_id: guest('bob').domid, handle: dumb.handle };
    await assert.rejects(device.dumbToRefs(to), sysError('EINVAL', /domain 1, who alone/));
    assert.equal(device.mapDumb(dumb.handle).length, dumb.size, 'and stays as it was');
  }),
);

test(
  '2018: DUMB_TO_REFS twice: the second is refused, the first set stays and ends with the handle',
  on(async ({ device, dom0, guest, run, frames }) => {
    const alice = guest('alice');
    const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    const handle = device.primeBufferToHandle(memory);
    const to = { num_grefs: PAGES, otherend_id: alice.domid, handle };
    const both = await run(Promise.allSettled([device.dumbToRefs(to), device.dumbToRefs(to)]));
    const [first, second] = both;
    assert(first!.status === 'fulfilled' && second!.status === 'rejected');
    assert(sysError('EBUSY', /granted to domain 1/)(second!.reason));
    const bob = { ...to, otherend_id: guest('bob').domid };
    await assert.rejects(device.dumbToRefs(bob), sysError('EBUSY'));
    const { grefs } = first.value;
    await run(device.gemClose(handle).released);
    const revoked = alice.foreign.map({ domid: DOM0, refs: grefs, writable: false });
    await assert.rejects(revoked, GrantMapError);
    assert.equal(frames(), 0);
  }),
);

test(
  '2018: DUMB_TO_REFS that fails leaks no grant, and the buffer can be granted afterwards',
  on(
    async ({ device, dom0, guest, run, frames }) => {
      const alice = guest('alice');
      const taken = await dom0.grants.share({ domid: alice.domid, pages: 300, writable: true });
      const memory = await dom0.memory.allocate({ pages: 300, contiguity: 'none' });
      const handle = device.primeBufferToHandle(memory);
      const to = { num_grefs: 300, otherend_id: alice.domid, handle };
      for (const num_grefs of [0, 299, 301, 2 ** 32]) {
        await assert.rejects(device.dumbToRefs({ ...to, num_grefs }), sysError('EINVAL'));
      }
      await assert.rejects(run(device.dumbToRefs(to)), sysError('ENOSPC'));
      await assert.rejects(device.dumbToRefs({ ...to, otherend_id: -1 }), sysError('EINVAL'));
      await taken[Symbol.asyncDispose]();
      const { grefs } = await run(device.dumbToRefs(to));
      assert.equal(grefs.length, 300);
      await run(device.gemClose(handle).released);
      assert.equal(frames(), 0);
    },
    { dom0Limits: { maxGrantFrames: 1 } },
  ),
);

test('2018: GEM_CLOSE while DUMB_TO_REFS is under way: refused, and everything is undone', () => {
  let closeNow = () => {};
  return onDevice(
    async ({ device, dom0, guest, run, frames }) => {
      const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
      const handle = device.primeBufferToHandle(memory);
      let ending: { released: Promise<void> } | undefined;
      closeNow = () => {
        ending = device.gemClose(handle);
      };
      const to = { num_grefs: PAGES, otherend_id: guest('alice').domid, handle };
      await assert.rejects(run(device.dumbToRefs(to)), sysError('EINVAL', /closed meanwhile/));
      await run(ending!.released);
      assert.equal(frames(), 0);
      await assert.rejects(device.dumbToRefs(to), sysError('EINVAL', /names no buffer/));
    },
    {
      domain: (dom0) =>
        intercepting(dom0, 'lend', async () => {
          await null;
          closeNow();
        }),
    },
  );
});

test(
  '2018: access ends before the memory is given up, and not the other way round',
  on(async ({ device, dom0, guest, run }) => {
    const alice = guest('alice');
    const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    const order: string[] = [];
    const free = memory.free.bind(memory);
    memory.free = () => {
      order.push(`free, ${memory.loans.size} loans`);
      return free();
    };
    const handle = device.primeBufferToHandle(memory);
    const to = { num_grefs: PAGES, otherend_id: alice.domid, handle };
    const { grefs } = await run(device.dumbToRefs(to));
    const mapping = await alice.foreign.map({ domid: DOM0, refs: grefs, writable: true });
    const ending = device.gemClose(handle);
    assert.equal((await run(ending.release({ timeoutMs: 2000 }))).state, 'quarantined');
    assert.deepEqual(order, []);
    await mapping[Symbol.asyncDispose]();
    await run(ending.released);
    assert.deepEqual(order, ['free, 0 loans']);
  }),
);

test(
  'an imported buffer that was never granted is freed with its handle, once its driver lets go',
  on(async ({ device, dom0, run, frames }) => {
    const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    const gpu = new TestDevice().attach(memory);
    const ending = device.gemClose(device.primeBufferToHandle(memory));
    const late = await run(ending.release({ timeoutMs: 10 }));
    assert(late.state === 'quarantined');
    assert.match(late.holders[0]!.evidence, /attachments/);
    gpu[Symbol.dispose]();
    await run(ending.released);
    assert.equal(frames(), 0);
  }),
);

test(
  'handles that name nothing are EINVAL in every call, and closing twice is once too often',
  on(async ({ device, dom0 }) => {
    const to = { num_grefs: 1, otherend_id: 1, handle: 9 };
    await assert.rejects(device.dumbToRefs(to), sysError('EINVAL'));
    for (const handle of [0, 9, -1, 1.5, Number.NaN]) {
      assert.throws(() => device.gemClose(handle), sysError('EINVAL'));
      assert.throws(() => device.primeHandleToBuffer(handle), sysError('EINVAL'));
      assert.throws(() => device.mapDumb(handle), sysError('EINVAL'));
    }
    const memory = await dom0.memory.allocate({ pages: 1, contiguity: 'none' });
    const handle = device.primeBufferToHandle(memory);
    device.gemClose(handle);
    assert.throws(() => device.gemClose(handle), sysError('EINVAL'));
  }),
);

test('closing the device closes every handle, also of a call that is under way', () => {
  let closeNow = async () => {};
  let armed = false;
  return onDevice(
    async ({ device, dom0, guest, run, frames, mapped }) => {
      const alice = guest('alice');
      const shared = await share(alice);
      const kept = await run(device.dumbFromRefs(request(alice, shared)));
      const gpu = new TestDevice().attach(device.primeHandleToBuffer(kept.dumb.handle));
      const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
      const handle = device.primeBufferToHandle(memory);
      await run(device.dumbToRefs({ num_grefs: PAGES, otherend_id: alice.domid, handle }));
      let closing: Promise<void> | undefined;
      closeNow = async () => {
        closing = device[Symbol.asyncDispose]();
      };
      armed = true;
      const late = device.dumbFromRefs(request(alice, shared));
      await assert.rejects(run(late), sysError('EBADF', /closed/));
      await run(closing!);
      assert.equal(frames(), 0);
      assert.equal(mapped(), 2 * PAGES, 'the dma-buf and our view, until the driver lets go');
      const { wait_handle } = kept;
      gpu[Symbol.dispose]();
      await run(device.dumbWaitFree({ wait_handle, wait_to_ms: 1000 }));
      await assert.rejects(device.dumbFromRefs(request(alice, shared)), sysError('EBADF'));
      assert.throws(() => device.gemClose(1), sysError('EBADF'));
      assert.throws(() => device.primeBufferToHandle(memory), sysError('EBADF'));
    },
    {
      domain: (dom0) =>
        intercepting(dom0, 'export', async () => {
          if (armed) await closeNow();
        }),
    },
  );
});
