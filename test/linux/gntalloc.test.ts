// Sharing pages over a kernel that refuses on purpose; the pages themselves are real.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ioctlGntallocAllocGref } from '../../src/abi/gntalloc.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { Gntalloc } from '../../src/linux/gntalloc.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { domId } from '../../src/xen/ids.ts';
import { FakeGntalloc } from './fake-devices.ts';

const domid = domId(3);

test('shared pages are zeroed, writable by us, contiguous, with one ref each', async () => {
  const device = new FakeGntalloc();
  using gntalloc = new Gntalloc(device);
  await using shared = await gntalloc.share({ domid, pages: 3, writable: false });
  assert.deepEqual(shared.refs, [100, 101, 102]);
  assert.equal(shared.bytes.length, 3 * PAGE_SIZE);
  assert(shared.bytes.every((byte) => byte === 0));
  shared.bytes[2 * PAGE_SIZE] = 1;
  assert.equal(shared.bytes[2 * PAGE_SIZE], 1);
});

test('the peer may write only when asked for', async () => {
  const device = new FakeGntalloc();
  using gntalloc = new Gntalloc(device);
  await gntalloc.share({ domid, pages: 1, writable: false });
  await gntalloc.share({ domid, pages: 1, writable: true });
  const { flags } = ioctlGntallocAllocGref.fields;
  assert.deepEqual(
    device.seen.map(({ argument }) => flags.get(new DataView(argument.buffer), 0)),
    [0, 1],
  );
});

test('ending access gives the pages back once; a stale view reads zeros', async () => {
  const device = new FakeGntalloc();
  using gntalloc = new Gntalloc(device);
  const shared = await gntalloc.share({ domid, pages: 2, writable: true });
  const stale = shared.bytes;
  stale[0] = 9;
  await shared[Symbol.asyncDispose]();
  await shared[Symbol.asyncDispose]();
  assert.equal(stale[0], 0);
  assert.equal(device.records.size, 0);
  assert.equal(device.count('IOCTL_GNTALLOC_DEALLOC_GREF'), 1);
});

test('ending access that fails is tried again, and is over once it has succeeded', async () => {
  const device = new FakeGntalloc();
  using gntalloc = new Gntalloc(device);
  const shared = await gntalloc.share({ domid, pages: 2, writable: true });
  device.planned.set('IOCTL_GNTALLOC_DEALLOC_GREF', ['ENOMEM']);
  await assert.rejects(shared[Symbol.asyncDispose](), SysError);
  assert.equal(device.records.size, 1);
  await shared[Symbol.asyncDispose]();
  await shared[Symbol.asyncDispose]();
  assert.equal(device.records.size, 0);
  assert.equal(device.count('IOCTL_GNTALLOC_DEALLOC_GREF'), 2);
});

test('no room left is an error that says which limit, and nothing is held', async () => {
  const device = new FakeGntalloc();
  using gntalloc = new Gntalloc(device);
  device.limit = 2;
  await assert.rejects(
    gntalloc.share({ domid, pages: 3, writable: true }),
    (error) =>
      error instanceof SysError &&
      error.errnoName === 'ENOSPC' &&
      error.remedy?.includes('xen_gntalloc/parameters/limit') === true,
  );
  assert.equal(device.records.size, 0);
});

test('pages that cannot be shown to us are given back at once', async () => {
  const device = new FakeGntalloc();
  using gntalloc = new Gntalloc(device);
  device.mmapFails = true;
  await assert.rejects(
    gntalloc.share({ domid, pages: 3, writable: true }),
    (error) => error instanceof SysError && error.call === 'mmap',
  );
  assert.equal(device.records.size, 0);
});

test('closing the device ends access to everything first', async () => {
  const device = new FakeGntalloc();
  const gntalloc = new Gntalloc(device);
  await gntalloc.share({ domid, pages: 3, writable: true });
  await gntalloc.share({ domid, pages: 1, writable: true });
  gntalloc[Symbol.dispose]();
  assert.equal(device.records.size, 0);
  assert.equal(device.closed, true);
});
