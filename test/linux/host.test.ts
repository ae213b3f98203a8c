// The host probe and the device files on whatever computer the tests run on: one without Xen gets its
// remedies, and one with Xen is what the lab's scenarios are for.

import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { summaryOf } from '../../src/cli/doctor.ts';
import { GNTDEV, openXenDevice } from '../../src/linux/device.ts';
import type { CardReport } from '../../src/linux/drm/report.ts';
import { probeHost, requireServable } from '../../src/linux/host.ts';
import { kmsPath } from '../../src/linux/kms-path.ts';
import { sharePath } from '../../src/linux/share-path.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { FakeKernel } from './fake-dma-bufs.ts';

const xen = existsSync('/sys/hypervisor/type');

const NAMES = [
  'event-channels',
  'map-grants',
  'share-pages',
  'xenstore',
  'export-refs',
  'lend-buffers',
  'udmabuf',
  'dma-heaps',
  'contiguous-memory',
  'observe-grants',
  'kms',
];

test('the probe answers for every way, with a reason and a remedy where there is none', async () => {
  const report = await probeHost(process.env);
  assert.equal(report.notXen === undefined, xen);
  assert.deepEqual(Object.keys(report.paths), NAMES);
  for (const { reason } of Object.values(report.paths)) assert.match(reason, /^[^\n]+$/);
  if (xen) return;
  for (const name of ['event-channels', 'map-grants', 'share-pages'] as const) {
    const { available, reason, remedy } = report.paths[name];
    assert.equal(available, false);
    assert.match(`${reason}; ${remedy}`, /ENOENT.*modprobe.*xen-zcopy demo/);
  }
});

test('ways that work are found to work by doing what they do, and nothing stays open', async () => {
  const kernel = new FakeKernel();
  // The first run leaves what Node opens once.
  await probeHost(process.env, kernel.open);
  const before = readdirSync('/proc/self/fd').length;
  const { paths } = await probeHost(process.env, kernel.open);
  assert.deepEqual(paths['lend-buffers'], {
    available: true,
    reason: 'lent a page and ended the loan',
  });
  assert.deepEqual(paths.udmabuf, { available: true, reason: 'made a dma-buf of a page' });
  assert.equal(kernel.table.read(8).domid, 0x7fef, 'to nobody');
  assert.equal(kernel.table.read(8).flags, 0);
  assert.match(paths['export-refs'].reason, /compiled in/);
  assert.equal(readdirSync('/proc/self/fd').length, before);
});

test('a host that lets too few pages be shared for a picture says how to allow more', async () => {
  const kernel = new FakeKernel();
  const { paths } = await probeHost(process.env, kernel.open);
  assert.match(paths['share-pages'].reason, /^opened; all programs together may share \d+ pages$/);
  for (const limit of [1024, 2024]) {
    const { available, reason, remedy } = sharePath(limit);
    assert.equal(available, true);
    assert.match(reason, new RegExp(`share ${limit} pages`));
    assert.match(remedy!, /2025 pages: `echo 65536 > .*xen_gntalloc.parameters.limit`/);
  }
  const reason = 'opened; all programs together may share 2025 pages';
  assert.deepEqual(sharePath(2025), { available: true, reason });
});

test('a kernel without dma-bufs of grants is told from one that refuses', async () => {
  const kernel = new FakeKernel();
  kernel.refuses.set('IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS', 'ENOTTY');
  kernel.refuses.set('IOCTL_GNTDEV_DMABUF_IMP_TO_REFS', 'ENOTTY');
  const { paths } = await probeHost(process.env, kernel.open);
  for (const name of ['export-refs', 'lend-buffers'] as const) {
    assert.equal(paths[name].available, false);
    assert.match(paths[name].remedy!, /CONFIG_XEN_GNTDEV_DMABUF/);
  }
});

test("doctor's summary says which way buffers will take", async () => {
  const kernel = new FakeKernel();
  const { paths } = await probeHost(process.env, kernel.open);
  const [theirs, ours] = summaryOf(paths);
  assert.match(theirs!, /become dma-bufs/);
  assert.match(ours!, /can be lent.*memfds/);
  kernel.absent.add('/dev/xen/gntdev');
  const [mapped, kept] = summaryOf((await probeHost(process.env, kernel.open)).paths);
  assert.match(mapped!, /are mapped/);
  assert.match(kept!, /cannot be lent.*be-alloc=0/);
});

const CARD: CardReport = {
  path: '/dev/dri/card0',
  driver: 'vkms',
  atomic: true,
  dumbBuffers: true,
  prime: { imports: true, exports: true },
  connectors: [
    { name: 'Virtual-1', status: 'connected', modes: 2 },
    { name: 'Virtual-2', status: 'disconnected', modes: 0 },
  ],
};
const RENDERER: CardReport = {
  path: '/dev/dri/card1',
  driver: 'v3d',
  problem: 'it has no screens',
  connectors: [],
};

test('the displays of a host are told with the names of their drivers', () => {
  assert.deepEqual(kmsPath([CARD, RENDERER]), {
    available: true,
    reason:
      '/dev/dri/card0 (vkms): Virtual-1 connected, Virtual-2 disconnected; /dev/dri/card1 (v3d): it has no screens',
  });
});

test('a host without a card that shows guests says what each lacks', () => {
  const old: CardReport = { ...CARD, atomic: false };
  const closed: CardReport = { path: '/dev/dri/card2', problem: 'not for you', connectors: [] };
  const cases: readonly (readonly [readonly CardReport[], RegExp])[] = [
    [[], /^no card in \/dev\/dri$/],
    [[RENDERER], /^no card drives displays: \/dev\/dri\/card1 \(v3d\): it has no screens$/],
    [[{ ...CARD, connectors: [] }], /card0 \(vkms\): no connectors$/],
    [[old, closed], /connected, but its driver sets no .*; \/dev\/dri\/card2: not for you$/],
  ];
  for (const [cards, expected] of cases) {
    const { available, reason, remedy } = kmsPath(cards);
    assert.equal(available, false);
    assert.match(reason, expected);
    assert.match(remedy!, /not needed for viewers/);
  }
});

test('a host without Xen cannot serve, in one line that says what can be done instead', async () => {
  const { notXen, paths } = await probeHost(process.env);
  if (xen) return assert.equal(notXen, undefined);
  assert(notXen);
  assert.match(notXen.message, /^this computer does not run on Xen: [^\n]*xen-zcopy demo[^\n]*$/);
  assert.throws(() => requireServable({ notXen, paths }), notXen);
});

test('a Xen host without drivers cannot serve, and each driver is named', async () => {
  const usable = { available: true, reason: 'opened' };
  const { paths } = await probeHost(process.env);
  const missing = {
    ...paths,
    'event-channels': { available: false, reason: 'no evtchn', remedy: 'load it' },
    'map-grants': { available: false, reason: 'no gntdev' },
    xenstore: usable,
  };
  assert.throws(() => requireServable({ paths: missing }), /no evtchn; load it; no gntdev/);
  const enough = { ...missing, 'event-channels': usable, 'map-grants': usable };
  assert.doesNotThrow(() => requireServable({ paths: enough }));
});

test('a device that is not there says which module makes it', () => {
  assert.throws(
    () => openXenDevice({ ...GNTDEV, path: `${GNTDEV.path}-absent` }),
    (error) =>
      error instanceof SysError &&
      error.errnoName === 'ENOENT' &&
      error.remedy?.includes('modprobe xen-gntdev') === true,
  );
});
