// Refs to buffer: which bytes, mapped how, and every way in which it may fail or be held.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { GrantMapError, type SharedPages } from '../../src/xen/domain.ts';
import { DOM0, type Gref } from '../../src/xen/ids.ts';
import { unsupported } from '../../src/xen/unsupported.ts';
import { Zcopy } from '../../src/zcopy/zcopy.ts';
import type { MachineOptions } from '../hypervisor/world.ts';
import {
  BROKEN,
  failing,
  intercepting,
  type SharingWorld,
  sharing,
  sysError,
  TestDevice,
} from './world.ts';

const PAGES = 3;

function share(guest: GuestDomain, pages = PAGES, writable = true): Promise<SharedPages> {
  return guest.grants.share({ domid: DOM0, pages, writable });
}

const on = (body: (world: SharingWorld) => Promise<void>, options?: MachineOptions) => () =>
  sharing(body, options);

test(
  "a guest's pages are one view of the same memory, and given back by a release",
  on(async ({ guest, zcopy, run, mapped }) => {
    const { domid, ...alice } = guest('alice');
    const shared = await alice.grants.share({ domid: DOM0, pages: PAGES, writable: true });
    const buffer = await run(zcopy.fromRefs({ domid, refs: shared.refs }));
    assert.deepEqual([buffer.domid, buffer.pages, buffer.state], [domid, PAGES, 'live']);
    assert.deepEqual(
      [buffer.memory, buffer.withoutDmaBuf, buffer.holders],
      [undefined, undefined, []],
    );
    assert.equal(buffer.contiguity.kind, 'none');
    shared.bytes.forEach((_, at) => {
      shared.bytes[at] = at % 251;
    });
    assert.deepEqual(Buffer.from(buffer.bytes), Buffer.from(shared.bytes));
    const view = buffer.bytes;
    assert.deepEqual(await run(buffer.release()), { state: 'released' });
    assert.equal(mapped(), 0);
    assert(
      view.every((byte) => byte === 0),
      'a stale view reads zeros',
    );
    assert.throws(() => buffer.bytes, /released buffer/);
  }),
);

test(
  'mapped for reading unless writing is asked for, which the grants must permit',
  on(async ({ guest, dom0, runtime, run }) => {
    const alice = guest('alice');
    const { domid } = alice;
    const asked: boolean[] = [];
    const domain = intercepting(dom0, 'map', (request) => {
      if ('writable' in request) asked.push(request.writable);
    });
    const zcopy = new Zcopy({ runtime, domain });
    const { refs } = await share(alice);
    const reader = await run(zcopy.fromRefs({ domid, refs }));
    const writer = await run(zcopy.fromRefs({ domid, refs, writable: true }));
    assert.deepEqual(asked, [false, true]);
    writer.bytes[0] = 3;
    assert.equal(reader.bytes[0], 3);
    const readOnly = await share(alice, PAGES, false);
    await assert.rejects(
      run(zcopy.fromRefs({ domid, refs: readOnly.refs, writable: true })),
      (error) => error instanceof GrantMapError && error.status === 'GNTST_general_error',
    );
    await run(Promise.all([reader.release(), writer.release()]));
  }),
);

for (const { dataOffset, byteLength, pages } of [
  { dataOffset: 0, byteLength: 1, pages: 1 },
  { dataOffset: 0, byteLength: PAGE_SIZE, pages: 1 },
  { dataOffset: 1, byteLength: PAGE_SIZE, pages: 2 },
  { dataOffset: 100, byteLength: 2 * PAGE_SIZE - 100, pages: 2 },
  { dataOffset: PAGE_SIZE + 1, byteLength: PAGE_SIZE + 7, pages: 3 },
]) {
  test(
    `exactly ${byteLength} bytes from byte ${dataOffset} on are the buffer, in ${pages} pages`,
    on(async ({ guest, zcopy, run, mapped }) => {
      const alice = guest('alice');
      const { domid } = alice;
      const { refs, bytes } = await share(alice, pages + 1);
      bytes[dataOffset] = 1;
      bytes[dataOffset + byteLength - 1] = 2;
      for (const count of [pages - 1, pages + 1]) {
        const wrong = { domid, refs: refs.slice(0, count), dataOffset, byteLength };
        await assert.rejects(run(zcopy.fromRefs(wrong)), sysError('EINVAL'));
      }
      const right = { domid, refs: refs.slice(0, pages), dataOffset, byteLength };
      const buffer = await run(zcopy.fromRefs(right));
      assert.equal(buffer.bytes.length, byteLength);
      assert.deepEqual([buffer.bytes.at(-1), buffer.bytes[0]], [2, byteLength === 1 ? 2 : 1]);
      await run(buffer.release());
      assert.equal(mapped(), 0);
    }),
  );
}

test(
  'a request that cannot be meant is EINVAL, and nothing is mapped for it',
  on(async ({ guest, zcopy, run, mapped }) => {
    const alice = guest('alice');
    const { domid } = alice;
    const { refs } = await share(alice);
    const bad = [
      { domid, refs: [] },
      { domid, refs: [refs[0]!, 0 as Gref, refs[1]!] },
      { domid, refs, dataOffset: -1 },
      { domid, refs, byteLength: 0 },
      { domid, refs, byteLength: Number.NaN },
      { domid, refs, dataOffset: 0.5 },
      { domid, refs, dataOffset: PAGES * PAGE_SIZE },
      { domid, refs, byteLength: PAGES * PAGE_SIZE + 1 },
      { domid, refs, byteLength: Number.POSITIVE_INFINITY },
    ];
    for (const request of bad)
      await assert.rejects(run(zcopy.fromRefs(request)), sysError('EINVAL'));
    assert.equal(mapped(), 0);
  }),
);

for (const dmaBuf of ['none', 'if-possible', 'required'] as const) {
  test(
    `G2: a page that cannot be mapped unwinds everything and is named (dma-buf: ${dmaBuf})`,
    on(async ({ guest, zcopy, run, mapped }) => {
      const alice = guest('alice');
      const { domid } = alice;
      const { refs } = await share(alice, 5);
      for (let index = 0; index < refs.length; index++) {
        const broken = [...refs];
        broken[index] = 400 as Gref;
        await assert.rejects(
          run(zcopy.fromRefs({ domid, refs: broken, dmaBuf })),
          (error) =>
            error instanceof GrantMapError &&
            error.index === index &&
            error.ref === 400 &&
            error.status === 'GNTST_general_error',
        );
        assert.equal(mapped(), 0);
      }
    }),
  );
}

test(
  'G2: a dma-buf that fails after the mapping takes the mapping with it',
  on(async ({ guest, dom0, runtime, run, mapped }) => {
    const alice = guest('alice');
    const { refs } = await share(alice);
    const { domid } = alice;
    const broken = new Zcopy({ runtime, domain: failing(dom0, 'export', BROKEN) });
    for (const dmaBuf of ['if-possible', 'required'] as const) {
      const made = broken.fromRefs({ domid, refs, dmaBuf });
      await assert.rejects(run(made), sysError('EIO', /broken/));
      assert.equal(mapped(), 0);
    }
    const full = new Zcopy({ runtime, domain: failing(dom0, 'export') });
    const required = full.fromRefs({ domid, refs, dmaBuf: 'required' });
    await assert.rejects(run(required), sysError('ENOMEM', /no room/));
    assert.equal(mapped(), 0);
    const buffer = await run(full.fromRefs({ domid, refs, dmaBuf: 'if-possible' }));
    assert.match(buffer.withoutDmaBuf!, /no room/);
    await run(buffer.release());
    assert.equal(mapped(), 0);
  }),
);

test(
  'a dma-buf where grants permit it: else the reason, or a refusal where it is required',
  on(async ({ guest, zcopy, run, mapped }) => {
    const alice = guest('alice');
    const { domid } = alice;
    const { refs } = await share(alice);
    const readOnly = await share(alice, PAGES, false);
    const both = await run(zcopy.fromRefs({ domid, refs, dmaBuf: 'required' }));
    assert.equal(both.memory?.pages, PAGES);
    assert.equal(both.withoutDmaBuf, undefined);
    assert.equal(both.contiguity, both.memory?.contiguity);
    const view = await run(zcopy.fromRefs({ domid, refs: readOnly.refs, dmaBuf: 'if-possible' }));
    assert.equal(view.memory, undefined);
    assert.match(view.withoutDmaBuf!, /cannot be mapped: GNTST_general_error/);
    const required = zcopy.fromRefs({ domid, refs: readOnly.refs, dmaBuf: 'required' });
    await assert.rejects(run(required), GrantMapError);
    await run(Promise.all([both.release(), view.release()]));
    assert.equal(mapped(), 0);
  }),
);

test(
  'a host that makes no dma-bufs of grants: the pages are mapped, with the reason, unless it is required',
  on(async ({ guest, dom0, runtime, run, mapped }) => {
    const alice = guest('alice');
    const { domid } = alice;
    const { refs } = await share(alice);
    const domain = intercepting(dom0, 'export', () => {
      throw unsupported('DMABUF_EXP_FROM_REFS', 'domain 0 is a PV domain');
    });
    const zcopy = new Zcopy({ runtime, domain });
    const buffer = await run(zcopy.fromRefs({ domid, refs, dmaBuf: 'if-possible' }));
    assert.deepEqual([buffer.memory, buffer.contiguity.kind], [undefined, 'none']);
    assert.match(buffer.withoutDmaBuf!, /PV domain/);
    await run(buffer.release());
    const required = zcopy.fromRefs({ domid, refs, dmaBuf: 'required' });
    await assert.rejects(run(required), sysError('EOPNOTSUPP', /PV domain/));
    assert.equal(mapped(), 0);
  }),
);

test(
  'G2: without maptrack entries for a dma-buf the pages are mapped only, or nothing is',
  on(
    async ({ guest, zcopy, run, mapped }) => {
      const alice = guest('alice');
      const { domid } = alice;
      const { refs } = await share(alice, 200);
      const buffer = await run(zcopy.fromRefs({ domid, refs, dmaBuf: 'if-possible' }));
      assert.match(buffer.withoutDmaBuf!, /GNTST_no_space.*max_maptrack_frames/);
      await run(buffer.release());
      const required = zcopy.fromRefs({ domid, refs, dmaBuf: 'required' });
      await assert.rejects(run(required), sysError('ENOMEM', /max_maptrack_frames/));
      assert.equal(mapped(), 0);
    },
    { dom0Limits: { maxMaptrackFrames: 1 } },
  ),
);

test(
  'the refs are those of the call, whatever the caller does with its array meanwhile',
  on(async ({ guest, dom0, runtime, run, mapped }) => {
    const alice = guest('alice');
    const [mine, other] = [await share(alice), await share(alice)];
    const refs = [...mine.refs];
    const domain = intercepting(dom0, 'export', () => {
      refs.splice(0, PAGES, ...other.refs);
    });
    const zcopy = new Zcopy({ runtime, domain });
    const buffer = await run(zcopy.fromRefs({ domid: alice.domid, refs, dmaBuf: 'required' }));
    assert.deepEqual(buffer.refs, mine.refs);
    await other[Symbol.asyncDispose]();
    assert.equal(alice.grants.deferredPages, 0, 'no page of the other array is mapped');
    await run(buffer.release());
    assert.equal(mapped(), 0);
  }),
);

test(
  'G1: the guest revokes while mapped: the picture stays until the release, then its pages are its own',
  on(async ({ guest, zcopy, run, pause, hypervisor }) => {
    const alice = guest('alice');
    const shared = await share(alice);
    shared.bytes.fill(7);
    const request = { domid: alice.domid, refs: shared.refs, dmaBuf: 'required' } as const;
    const buffer = await run(zcopy.fromRefs(request));
    await shared[Symbol.asyncDispose]();
    assert.equal(alice.grants.deferredPages, PAGES);
    assert(buffer.bytes.every((byte) => byte === 7));
    await pause(2000);
    assert.equal(alice.grants.deferredPages, PAGES);
    await run(buffer.release());
    await pause(1000);
    assert.equal(alice.grants.deferredPages, 0);
    assert.equal(hypervisor.memory.ownedBy(alice.domid), 0);
  }),
);

test(
  'G1: the guest dies while mapped: what it drew stays until the release, then the domain is gone',
  on(async ({ guest, zcopy, run, hypervisor }) => {
    const alice = guest('alice');
    const { refs, bytes } = await share(alice);
    bytes.fill(7);
    const buffer = await run(zcopy.fromRefs({ domid: alice.domid, refs, dmaBuf: 'required' }));
    hypervisor.destroy(alice.domid);
    assert(buffer.bytes.every((byte) => byte === 7));
    assert.equal(hypervisor.domain(alice.domid)?.state, 'dying');
    assert.deepEqual(await run(buffer.release()), { state: 'released' });
    assert.equal(hypervisor.domain(alice.domid), undefined);
  }),
);

test(
  'G3: an importer keeps the dma-buf: quarantined and said by whom, and released when it lets go',
  on(async ({ guest, zcopy, run, runtime, mapped }) => {
    const alice = guest('alice');
    const { refs } = await share(alice);
    const buffer = await run(zcopy.fromRefs({ domid: alice.domid, refs, dmaBuf: 'required' }));
    const device = new TestDevice();
    const gpu = device.attach(buffer.memory);
    const late = await run(buffer.release({ timeoutMs: 3000 }));
    assert.equal(runtime.nowMs(), 3000);
    assert(late.state === 'quarantined' && buffer.state === 'quarantined');
    const [holder] = late.holders;
    assert.deepEqual([holder!.who, holder!.pages], ['whoever imported the dma-buf', PAGES]);
    assert.throws(() => device.attach(buffer.memory), sysError('EBADF'));
    assert.equal(mapped(), 2 * PAGES, 'the grants stay mapped');
    gpu[Symbol.dispose]();
    assert.deepEqual(await run(buffer.release({ timeoutMs: 1000 })), { state: 'released' });
    assert.equal(mapped(), 0);
  }),
);

test(
  'G3: an aborted wait, waits at the same time, and waits after the end are all one release',
  on(async ({ guest, zcopy, run }) => {
    const alice = guest('alice');
    const { refs } = await share(alice);
    const buffer = await run(zcopy.fromRefs({ domid: alice.domid, refs, dmaBuf: 'required' }));
    const gpu = new TestDevice().attach(buffer.memory);
    const abort = new AbortController();
    const aborted = buffer.release({ signal: abort.signal });
    const [short, long] = [buffer.release({ timeoutMs: 10 }), buffer.release({ timeoutMs: 9000 })];
    abort.abort(new Error('enough'));
    await assert.rejects(aborted, /enough/);
    assert.equal((await run(short)).state, 'quarantined');
    gpu[Symbol.dispose]();
    assert.deepEqual(await run(long), { state: 'released' });
    assert.deepEqual(await run(buffer.release({ timeoutMs: 0 })), { state: 'released' });
    await buffer.released;
  }),
);

test(
  'an output that never lets go: quarantined and still readable, until the readers are abandoned',
  on(async ({ guest, zcopy, run, mapped, pause }) => {
    const alice = guest('alice');
    const { refs, bytes } = await share(alice);
    bytes.fill(7);
    const buffer = await run(zcopy.fromRefs({ domid: alice.domid, refs }));
    buffer.readBy(new Promise(() => {}));
    const view = buffer.bytes;
    const late = await run(buffer.release({ timeoutMs: 100 }));
    assert(late.state === 'quarantined');
    assert.match(late.holders[0]!.who, /output or program/);
    await pause(60_000);
    assert(view.every((byte) => byte === 7));
    assert.equal(mapped(), PAGES);
    buffer.abandonReaders();
    assert.deepEqual(await run(buffer.release()), { state: 'released' });
    assert(view.every((byte) => byte === 0));
    assert.equal(mapped(), 0);
  }),
);

test(
  'readers that fail let go as well, and one who begins while others are waited for is waited for',
  on(async ({ guest, zcopy, run, runtime, pause }) => {
    const alice = guest('alice');
    const { refs } = await share(alice);
    const buffer = await run(zcopy.fromRefs({ domid: alice.domid, refs }));
    const reading = (endMs: number) =>
      new Promise<void>((_, reject) => {
        runtime.after(endMs, () => reject(new Error('the encoder is gone')));
      });
    buffer.readBy(reading(100));
    const released = buffer.release();
    await pause(50);
    buffer.readBy(reading(500));
    await run(released);
    assert(runtime.nowMs() >= 550, `released at ${runtime.nowMs()} ms`);
  }),
);

test(
  'G1: the guest dies during the call: before the mapping it is refused, after it the pages stay',
  on(async ({ guest, dom0, runtime, run, hypervisor, mapped }) => {
    for (const call of ['map', 'export'] as const) {
      const alice = guest('alice');
      const { domid } = alice;
      const { refs, bytes } = await share(alice);
      bytes.fill(7);
      const domain = intercepting(dom0, call, () => hypervisor.destroy(domid));
      const zcopy = new Zcopy({ runtime, domain });
      const made = run(zcopy.fromRefs({ domid, refs, dmaBuf: 'if-possible' }));
      if (call === 'map') await assert.rejects(made, GrantMapError);
      else {
        const buffer = await made;
        assert(buffer.bytes.every((byte) => byte === 7));
        await run(buffer.release());
      }
      assert.equal(mapped(), 0);
      assert.equal(hypervisor.domain(domid), undefined);
    }
  }),
);

test(
  'a release after our own domain was closed is over at once',
  on(async ({ guest, dom0, zcopy, run, mapped, frames }) => {
    const alice = guest('alice');
    const { domid } = alice;
    const { refs } = await share(alice);
    const theirs = await run(zcopy.fromRefs({ domid, refs, dmaBuf: 'required' }));
    const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    const ours = await run(zcopy.toRefs({ domid, memory }));
    new TestDevice().attach(theirs.memory);
    await run(dom0[Symbol.asyncDispose]());
    for (const buffer of [theirs, ours]) {
      assert.deepEqual(await run(buffer.release({ timeoutMs: 10 })), { state: 'released' });
    }
    assert.deepEqual([mapped(), frames()], [0, 0]);
  }),
);
