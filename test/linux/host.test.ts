// The host probe and the device files on whatever computer the tests run on: one without Xen gets its
// remedies, and one with Xen is what the lab's scenarios are for.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { GNTDEV, openXenDevice } from '../../src/linux/device.ts';
import { HOST_PATHS, probeHost, requireServable } from '../../src/linux/host.ts';
import { SysError } from '../../src/runtime/errors.ts';

const xen = existsSync('/sys/hypervisor/type');

test('the probe answers for every way, with a reason and a remedy where there is none', async () => {
  const report = await probeHost(process.env);
  assert.equal(report.notXen === undefined, xen);
  assert.deepEqual(Object.keys(report.paths), [...HOST_PATHS]);
  for (const { available, reason } of Object.values(report.paths)) {
    assert.equal(available, reason === 'opened');
    if (!xen) assert.match(reason, /ENOENT.*xen-zcopy demo/);
  }
});

test('a host without Xen cannot serve, in one line that says what can be done instead', async () => {
  const { notXen, paths } = await probeHost(process.env);
  if (xen) return assert.equal(notXen, undefined);
  assert(notXen);
  assert.match(notXen.message, /^this computer does not run on Xen: [^\n]*xen-zcopy demo[^\n]*$/);
  assert.throws(() => requireServable({ notXen, paths }), notXen);
});

test('a Xen host without drivers cannot serve, and each driver is named', () => {
  const usable = { available: true, reason: 'opened' };
  const paths = {
    'event-channels': { available: false, reason: 'no evtchn' },
    'map-grants': { available: false, reason: 'no gntdev' },
    'share-pages': { available: false, reason: 'no gntalloc' },
    xenstore: usable,
  };
  assert.throws(() => requireServable({ paths }), /no evtchn; no gntdev/);
  const enough = { ...paths, 'event-channels': usable, 'map-grants': usable };
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
