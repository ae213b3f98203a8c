// Every kind of thing that a display's guest can make us hold: beyond its budget it is refused with -ENOMEM before
// anything is mapped for it, counted by the kind, and what it held is given back to the last piece.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RawFrontend } from '../../sim/guests/raw-frontend.ts';
import { XENDISPL_DBUF_FLG_REQ_ALLOC } from '../../src/abi/displif.ts';
import { XEN_ERRNO } from '../../src/abi/errno.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { addDevice, eraseDevice } from '../../src/xen/xenbus/toolstack.ts';
import type { Budget, HeldKind } from '../../src/zcopy/budget.ts';
import { BYTES, HEIGHT, WIDTH } from './bodies.ts';
import { DisplayHost } from './host.ts';
import { type Rig, rig } from './rig.ts';

const { XEN_ENOMEM } = XEN_ERRNO;
const PAGES = BYTES / 4096;
/** What one connector takes: its two pages. */
const RINGS = 2;
/** Beside a buffer, while it is made: its directory's page. */
const DIRECTORY = 1;

/** How often dom0 is asked to map something. */
function countMaps({ host }: Rig): { maps: number } {
  const { foreign } = host.host.dom0;
  const { map } = foreign;
  const counted = { maps: 0 };
  foreign.map = (request) => {
    counted.maps += 1;
    return map.call(foreign, request);
  };
  return counted;
}

/** With room for one buffer of three pages and not for another one. */
const ONE_BUFFER: readonly { readonly kind: HeldKind; readonly limit: number }[] = [
  { kind: 'bytes', limit: 2 * BYTES - 1 },
  { kind: 'buffers', limit: 1 },
  { kind: 'pages', limit: RINGS + 2 * PAGES - 1 },
  { kind: 'refs', limit: RINGS + 2 * PAGES - 1 },
  { kind: 'mappings', limit: RINGS + DIRECTORY },
  { kind: 'areas', limit: RINGS + DIRECTORY },
];

for (const { kind, limit } of ONE_BUFFER) {
  test(`${kind}: another buffer is refused before anything of it is mapped, and there is room again later`, async () => {
    const it = await rig(1, { budget: { [kind]: limit } });
    const [first, second] = [await it.pages(PAGES), await it.pages(PAGES)];
    assert.equal(await it.create({ gref_directory: first }), 0);
    const { held } = it.account;
    const { mapped } = it.host;
    const counted = countMaps(it);
    assert.equal(await it.create({ dbuf_cookie: 7n, gref_directory: second }), -XEN_ENOMEM);
    assert.deepEqual(it.account.refused, { [`over-budget-${kind}`]: 1 });
    assert.deepEqual(it.account.held, held);
    assert.equal(it.host.mapped, mapped);
    // How many areas a mapping takes is known to who maps: it is asked, and refuses.
    assert.equal(counted.maps, kind === 'areas' ? 1 : 0);
    assert.equal(await it.destroy(1n), 0);
    assert.equal(await it.create({ dbuf_cookie: 7n, gref_directory: second }), 0);
    await it.finish();
  });
}

test('framebuffers: one more than the budget has is refused, and there is room again later', async () => {
  const it = await rig(1, { budget: { framebuffers: 1 } });
  assert.equal(await it.create({ gref_directory: await it.pages(PAGES) }), 0);
  assert.equal(await it.attach({ fb_cookie: 2n }), 0);
  assert.equal(await it.attach({ fb_cookie: 3n }), -XEN_ENOMEM);
  assert.deepEqual(it.account.refused, { 'over-budget-framebuffers': 1 });
  assert.equal(it.account.held.framebuffers, 1);
  assert.equal(await it.detach(2n), 0);
  assert.equal(await it.attach({ fb_cookie: 3n }), 0);
  await it.finish();
});

test('requests: work that was answered late still counts, until it is done', async () => {
  // Each mapping takes so long that a buffer, of two mappings, is given up before it is there.
  const it = await rig(1, { delayMs: 2000, budget: { requests: 1 } });
  const [first, second] = [await it.pages(PAGES), await it.pages(PAGES)];
  assert.equal(await it.create({ gref_directory: first }), -XEN_ERRNO.XEN_ETIMEDOUT);
  assert.equal(it.account.held.requests, 1);
  const counted = countMaps(it);
  assert.equal(await it.create({ dbuf_cookie: 7n, gref_directory: second }), -XEN_ENOMEM);
  assert.equal(counted.maps, 0);
  assert.equal(it.account.refused['over-budget-requests'], 1);
  await it.host.until(() => it.account.held.requests === 0, 'the first one is done');
  await it.host.until(() => it.account.held.buffers === 0, 'it is undone');
  assert.equal(await it.destroy(7n), -XEN_ERRNO.XEN_ENOENT, 'and the second never was');
  await it.finish();
});

test('poolPages: a buffer beyond the guest’s own pool is refused, and there is room again later', async () => {
  const it = await rig(1, { beAlloc: true, budget: { poolPages: 2 * PAGES - 1 } });
  const request = { flags: XENDISPL_DBUF_FLG_REQ_ALLOC };
  const create = async (dbuf_cookie: bigint) =>
    it.create({ ...request, dbuf_cookie, gref_directory: (await it.offer(PAGES)).refs[0]! });
  assert.equal(await create(1n), 0);
  assert.equal(await create(7n), -XEN_ENOMEM);
  assert.deepEqual(it.account.refused, { 'over-budget-poolPages': 1 });
  assert.equal(it.account.held.poolPages, PAGES);
  assert.equal(await it.destroy(1n), 0);
  assert.equal(await create(7n), 0);
  await it.finish();
});

/** Too little for two connectors. */
const ONE_CONNECTOR: Partial<Budget> = { connectors: 1, ports: 3, mappings: 3, refs: 3, areas: 3 };

for (const [kind, limit] of Object.entries(ONE_CONNECTOR)) {
  test(`${kind}: a display with more connectors does not connect, holds nothing, and its guest is told`, async () => {
    const host = await DisplayHost.open({ budget: { [kind]: limit } });
    const { domain } = await host.guest(`${WIDTH}x${HEIGHT}`, `${WIDTH}x${HEIGHT}`);
    const raw = new RawFrontend(host, domain, { connectors: 2 });
    await raw.start();
    const reason = `over-budget-${kind}`;
    await host.until(() => host.account(domain.domid).refused[reason] === 1, 'it is refused');
    const path = `/local/domain/0/error/backend/vdispl/${domain.domid}/0/error`;
    const told = async () => (await host.run(host.host.dom0.store.read(path))) ?? '';
    await host.pause(50);
    assert.match(await told(), new RegExp(`^${XEN_ENOMEM} ${reason}`));
    assert.equal(raw.connections, 0);
    assert.equal(host.mapped, 1, 'xenstored’s page alone');
    const { watches, ...held } = host.account(domain.domid).held;
    assert.equal(watches, 1, 'of its return');
    assert(Object.values(held).every((count) => count === 0));
    await raw.close();
    await host.close();
  });
}

test('watches: one more device of a guest that is watched enough is not served, and the first one goes on', async () => {
  const it = await rig(1, { budget: { watches: 1 } });
  const { host, domid } = it;
  const { store } = host.host.dom0;
  const another = { backendDomid: DOM0, domid, devid: 1 };
  const types = { backendType: 'vdispl', frontendType: 'vdispl' };
  await host.run(addDevice(store, { ...another, ...types }));
  const { refused } = it.account;
  await host.until(() => it.account.refused['over-budget-watches'] === 1, 'it is refused');
  assert.deepEqual(refused, {});
  await host.pause(50);
  const path = `/local/domain/0/error/backend/vdispl/${domid}/1/error`;
  assert.match((await host.run(store.read(path))) ?? '', /over-budget-watches/);
  await it.show();
  await host.run(eraseDevice(store, { ...another, ...types }));
  await it.finish();
});
