// G1, G2, G4 and G5: grants that are revoked or kept, guests that die, and hosts that have nothing left to give.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XENDISPL_DBUF_FLG_REQ_ALLOC } from '../../src/abi/displif.ts';
import { XEN_ERRNO } from '../../src/abi/errno.ts';
import { ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { type ForeignMapping, GrantMapError } from '../../src/xen/domain.ts';
import { DOM0, gref } from '../../src/xen/ids.ts';
import { offeredRefs, writePageDirectory } from '../../src/xen/page-directory.ts';
import { request } from '../display/bodies.ts';
import { Attack, attackOn, survives, World } from './world.ts';

const { XEN_EINVAL, XEN_ENOMEM, XEN_ETIMEDOUT } = XEN_ERRNO;
const PAGES = 3;
const WORDS = 1024;
/** A little less than a frontend waits for an answer, in milliseconds. */
const PATIENCE_MS = 3000;

/** A buffer of ours, by directory, that the hostile guest has mapped. */
async function borrow(t: Attack, dbuf_cookie = 1n): Promise<ForeignMapping> {
  const directory = await t.offer(PAGES);
  const flags = XENDISPL_DBUF_FLG_REQ_ALLOC;
  assert.equal(await t.create({ dbuf_cookie, flags, gref_directory: directory.refs[0]! }), 0);
  const refs = offeredRefs(directory, PAGES);
  return t.world.run(t.domain.foreign.map({ domid: DOM0, refs, writable: true }));
}

function words({ bytes }: { readonly bytes: Uint8Array }): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

test('G1: pages that are revoked while they are shown stay until they are unmapped', () =>
  survives(async (t) => {
    const { grants } = t.domain;
    const request = { domid: DOM0, pages: PAGES, writable: false };
    const shared = await t.world.run(grants.share(request));
    words(shared).fill(Attack.PIXEL);
    const { refs } = shared;
    const directory = await t.world.run(writePageDirectory(grants, { domid: DOM0, refs }));
    assert.equal(await t.create({ gref_directory: directory.refs[0]! }), 0);
    assert.equal(await t.attach({}), 0);
    assert.equal(await t.config({}), 0);
    const { heldPages } = await t.world.run(shared.end());
    assert.equal(heldPages, PAGES);
    const { shown } = t.world.daemon.screen(t.domid, 0)!;
    assert(words(shown!).every((word) => word === Attack.PIXEL));
    assert.equal(await t.flip(2n), 0);
    assert.equal(await t.destroy(1n), 0);
    assert.equal((await t.world.run(shared.end())).heldPages, 0);
  }));

test('G1: a guest that dies while its pages are shown, flipped to, and looked at', () =>
  survives(async (t) => {
    await t.show();
    const screen = t.world.daemon.screen(t.domid, 0)!;
    let closed = false;
    using watch = screen.watch({
      onDamage: (damage) => watch.request(damage.generation),
      onClosed: () => {
        closed = true;
      },
    });
    watch.request(0);
    const stale = screen.shown!.bytes;
    assert.equal(stale[0], Attack.PIXEL & 0xff);
    assert.equal(await t.flip(2n), 0);
    t.guest.crash();
    await t.world.until(() => closed, 'the screen is closed');
    await t.world.ends([t.guest]);
    assert(
      stale.every((byte) => byte === 0),
      'a view that was kept shows nothing',
    );
  }));

test('G1: a guest that dies while it maps pages of ours, shown ones and others', () =>
  survives(
    async (t) => {
      words(await borrow(t)).fill(Attack.PIXEL);
      assert.equal(await t.attach({}), 0);
      assert.equal(await t.config({}), 0);
      await borrow(t, 2n);
      t.guest.crash();
    },
    { devices: { beAlloc: true } },
  ));

/** What the system says when it has no more of something, by what is acquired. */
const FAILURES: readonly Error[] = [
  new SysError({ call: 'a hypercall', errnoName: 'ENOMEM', context: 'as the test wants' }),
  new SysError({ call: 'a hypercall', errnoName: 'ENOSPC', context: 'as the test wants' }),
  new GrantMapError({ index: 0, ref: gref(1), status: 'GNTST_no_space' }),
  new GrantMapError({ index: 0, ref: gref(1), status: 'GNTST_eagain' }),
];

for (const beAlloc of [false, true]) {
  const whose = beAlloc ? 'pages of ours' : 'its own pages';
  test(`G2: everything that is acquired for a guest fails once, in turn: ${whose}`, async () => {
    let victim = -1;
    let left = 0;
    let failure = FAILURES[0]!;
    const world = await World.open({
      before: (_call, subject) => {
        if (subject === victim && left-- === 0) throw failure;
      },
    });
    let acquisitions = 0;
    for (let failed = true; failed; acquisitions++) {
      for (failure of FAILURES) {
        const t = await attackOn(world, { connect: false, devices: { beAlloc } });
        victim = t.domid;
        left = acquisitions;
        await t.raw.open();
        await useBuffers(t, beAlloc);
        failed = left < 0;
        victim = -1;
        assert.equal(await useBuffers(t, beAlloc), 0, 'nothing of the failure stays');
        await world.ends([t.guest]);
      }
    }
    assert(acquisitions > 6, `${acquisitions} acquisitions`);
    await world.verdict([]);
    await world.close();
  });
}

/** Makes a buffer, shows it, and destroys it, as far as that goes. @returns the answer to its creation */
async function useBuffers(t: Attack, beAlloc: boolean): Promise<number> {
  const flags = beAlloc ? XENDISPL_DBUF_FLG_REQ_ALLOC : 0;
  const gref_directory = beAlloc ? (await t.offer(PAGES)).refs[0]! : await t.pages(PAGES);
  const made = await t.create({ flags, gref_directory });
  if (made === 0) {
    assert.equal(await t.attach({}), 0);
    assert.equal(await t.config({}), 0);
    assert.equal(await t.destroy(1n), 0);
  } else {
    const { XEN_ENOSPC } = XEN_ERRNO;
    assert([XEN_ENOMEM, XEN_ENOSPC, XEN_EINVAL].includes(-made as never), `status ${made}`);
  }
  assert.equal(t.account.held.buffers, 0);
  return made;
}

test('G2: grants that are not to be mapped for now, and never: each try is an answer', async () => {
  let trouble = 0;
  await survives(
    async (t) => {
      const gref_directory = await t.pages(PAGES);
      trouble = 5;
      for (let tries = 0; tries < 5; tries++) {
        assert.equal(await t.create({ gref_directory }), -XEN_EINVAL);
      }
      assert.equal(await t.create({ gref_directory }), 0);
      assert.equal(t.refused['bad-grant'], 5);
      trouble = Number.POSITIVE_INFINITY;
      assert.equal(await t.create({ gref_directory, dbuf_cookie: 2n }), -XEN_EINVAL);
      assert.equal(await t.destroy(1n), 0);
      trouble = 0;
    },
    {
      before: (call) => {
        if (call !== 'map' || trouble === 0) return;
        trouble -= 1;
        throw new GrantMapError({ index: 0, ref: gref(1), status: 'GNTST_eagain' });
      },
    },
  );
});

test('P5: a mapping that takes for ever is answered in time, and undone when it comes', async () => {
  let delayMs = 0;
  let world: World | undefined;
  await survives(
    async (t) => {
      world = t.world;
      const gref_directory = await t.pages(PAGES);
      delayMs = 10_000;
      const askedAtMs = t.world.runtime.nowMs();
      assert.equal(await t.create({ gref_directory }), -XEN_ETIMEDOUT);
      assert(t.world.runtime.nowMs() - askedAtMs < PATIENCE_MS);
      const create = request.create({ dbuf_cookie: 2n });
      assert.equal(await t.connector.ask(create), -XEN_EINVAL, 'others are answered meanwhile');
      delayMs = 0;
      await t.world.until(() => t.account.held.buffers === 0, 'it is undone');
      assert.equal(await t.create({ gref_directory }), 0, 'the name is free again');
    },
    {
      before: async (call) => {
        if (call === 'map' && delayMs > 0) await sleep(world!.runtime, delayMs);
      },
    },
  );
});

test('G4: pages that a guest keeps after the end are nobody else’s, whatever it draws there', () =>
  survives(
    async (t) => {
      const kept = await borrow(t);
      words(kept).fill(Attack.PIXEL);
      assert.equal(await t.destroy(1n), -XEN_ETIMEDOUT);
      assert.equal(t.account.held.quarantinedPages, PAGES);
      const other = await attackOn(t.world, { devices: { beAlloc: true } });
      const others = await borrow(other);
      assert(words(others).every((word) => word === 0));
      words(kept).fill(0x1234_5678);
      assert(words(others).every((word) => word === 0));
      await t.world.flipsGoOn(5);
      await t.world.ends([other.guest]);
      assert.equal(t.account.held.quarantinedPages, PAGES, 'it is not forgotten');
      await t.world.run(kept[Symbol.asyncDispose]());
      await t.world.until(() => t.account.held.quarantinedPages === 0, 'the quarantine ends');
      assert.equal(t.account.held.poolPages, 0);
    },
    { devices: { beAlloc: true } },
  ));

test('G4: a guest that keeps more than it may leave in quarantine gets no more buffers', () =>
  survives(
    async (t) => {
      const kept: ForeignMapping[] = [];
      for (const cookie of [1n, 2n, 3n]) {
        kept.push(await borrow(t, cookie));
        assert.equal(await t.destroy(cookie), -XEN_ETIMEDOUT);
      }
      const directory = await t.offer(PAGES);
      const more = { flags: XENDISPL_DBUF_FLG_REQ_ALLOC, gref_directory: directory.refs[0]! };
      assert.equal(await t.create({ ...more, dbuf_cookie: 9n }), -XEN_ENOMEM);
      assert.equal(t.refused['over-budget-quarantinedPages'], 1);
      for (const mapping of kept) await t.world.run(mapping[Symbol.asyncDispose]());
      await t.world.until(() => t.account.held.quarantinedPages === 0, 'it lets go');
      assert.equal(await t.create({ ...more, dbuf_cookie: 9n }), 0);
    },
    { devices: { beAlloc: true }, budget: { quarantinedPages: 2 * PAGES } },
  ));

test('G5: pages of ours are empty when a guest gets them, also when another guest drew there', async () => {
  const world = await World.open({ machineFrames: 4096 });
  for (let round = 0; round < 5; round++) {
    const t = await attackOn(world, { devices: { beAlloc: true } });
    for (const cookie of [1n, 2n, 3n]) {
      const borrowed = await borrow(t, cookie);
      assert(
        words(borrowed).every((word) => word === 0),
        `round ${round}`,
      );
      words(borrowed).fill(Attack.PIXEL);
      assert.equal(words(borrowed).length, PAGES * WORDS);
    }
    await world.ends([t.guest]);
  }
  await world.verdict([]);
  await world.close();
});

test('G5: a grant for reading is mapped for reading, and one that is needed for writing is refused', () =>
  survives(async (t) => {
    const { grants } = t.domain;
    const request = { domid: DOM0, pages: 1, writable: false };
    const readOnly = await t.world.run(grants.share(request));
    await assert.rejects(
      t.world.run(
        t.world.host.dom0.foreign.map({ domid: t.domid, refs: readOnly.refs, writable: true }),
      ),
      GrantMapError,
    );
    await t.raw.close();
    t.raw.spoil = { '0/req-ring-ref': `${readOnly.refs[0]}` };
    await t.raw.start();
    await t.world.until(() => t.refusedFor('bad-grant') > 0, 'a ring that cannot be written');
    assert(t.raw.failure === undefined || t.raw.failure instanceof ProtocolViolation);
  }));
