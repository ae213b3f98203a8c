// How the kernel is asked to say farewell for pages, over one that does it as Linux's drivers do: once, when the
// last use of ours ends, also when nobody asked for the end.

import assert from 'node:assert/strict';
import { readdirSync, readSync } from 'node:fs';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { DeviceFile } from '../../src/linux/device.ts';
import { Gntalloc } from '../../src/linux/gntalloc.ts';
import { Gntdev } from '../../src/linux/gntdev.ts';
import { GrantObserver } from '../../src/linux/grant-observer.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { type EventChannel, GrantMapError } from '../../src/xen/domain.ts';
import { domId, gref, port } from '../../src/xen/ids.ts';
import { FakeGntalloc, FakeGntdev } from './fake-devices.ts';
import { FakeKernel } from './fake-dma-bufs.ts';

const domid = domId(7);
const SET_GNTDEV = 'IOCTL_GNTDEV_SET_UNMAP_NOTIFY';
const SET_GNTALLOC = 'IOCTL_GNTALLOC_SET_UNMAP_NOTIFY';
const DEALLOC = 'IOCTL_GNTALLOC_DEALLOC_GREF';

/** An open event channel of this domain; what we signal by it ourselves is counted. */
function channelOf(number = 5): EventChannel & { notified: number } {
  return {
    port: port(number),
    notified: 0,
    notify() {
      this.notified += 1;
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}

function openFiles(): number {
  return readdirSync('/proc/self/fd').length;
}

function refused(errnoName: string, pattern: RegExp) {
  return (error: unknown) => {
    assert(error instanceof SysError, String(error));
    assert.equal(error.errnoName, errnoName);
    assert.match(error.message, pattern);
    return true;
  };
}

/** A byte of a device's memory, as the peer sees it. */
function byteOf({ fd }: DeviceFile, at: number): number {
  const byte = new Uint8Array(1);
  assert.equal(readSync(fd, byte, 0, 1, at), 1);
  return byte[0]!;
}

const refsOf = (count: number) => Array.from({ length: count }, (_, i) => gref(1000 + i));
/** A byte of the fake's memory that is not 0, at the beginning of the page with this ref. */
const lowByte = (ref: number) => ref & 0xff;

test('unmapping clears the byte of the peer and signals it, once', async () => {
  const device = new FakeGntdev();
  using gntdev = new Gntdev(device);
  const farewell = { byte: PAGE_SIZE, channel: channelOf() };
  const mapping = await gntdev.map({ domid, refs: refsOf(3), writable: true, farewell });
  await using other = await gntdev.map({ domid, refs: refsOf(1), writable: true });
  assert.equal(mapping.bytes[PAGE_SIZE], lowByte(1001));
  assert.deepEqual(device.signalled, []);
  await mapping[Symbol.asyncDispose]();
  await mapping[Symbol.asyncDispose]();
  assert.deepEqual(device.signalled, [5]);
  assert.equal(farewell.channel.notified, 0, 'it is the kernel that signals');
  assert.equal(byteOf(device, PAGE_SIZE), 0);
  assert.equal(byteOf(device, PAGE_SIZE + 1), 1001 >> 8, 'no other byte');
  assert.equal(other.bytes[0], lowByte(1000), 'nobody else is told');
});

test('of several records the one with the byte says it, and is dropped last', async () => {
  for (const page of [0, 3, 7]) {
    const device = new FakeGntdev();
    device.limit = 3;
    using gntdev = new Gntdev(device, 3);
    const farewell = { byte: page * PAGE_SIZE + 1, channel: channelOf() };
    const mapping = await gntdev.map({ domid, refs: refsOf(8), writable: true, farewell });
    mapping.bytes[farewell.byte] = 9;
    const places = [...device.notifies].map(([place, { index }]) => [place, index]);
    const record = BigInt(Math.floor(page / 3) * 3 * PAGE_SIZE);
    assert.deepEqual(places, [[record, BigInt(farewell.byte)]], 'records follow one another');
    const dropped: (readonly number[])[] = [];
    device.onUnmap = () => void dropped.push([device.records.size, device.signalled.length]);
    await mapping[Symbol.asyncDispose]();
    assert.deepEqual(dropped, [
      [3, 0],
      [2, 0],
      [1, 0],
    ]);
    assert.deepEqual(device.signalled, [5]);
    assert.equal(byteOf(device, farewell.byte), 0);
  }
});

test('a mapping for reading has no byte to clear: the error says so, and nothing stays mapped', async () => {
  const device = new FakeGntdev();
  using gntdev = new Gntdev(device);
  const before = openFiles();
  const farewell = { byte: 0, channel: channelOf() };
  const request = { domid, refs: refsOf(2), farewell };
  await assert.rejects(
    gntdev.map({ ...request, writable: false }),
    refused('EINVAL', /farewell by port 5.*SET_UNMAP_NOTIFY.*for writing/),
  );
  const closed = { byte: 0, channel: channelOf(6) };
  await assert.rejects(
    gntdev.map({ ...request, writable: true, farewell: closed }),
    refused('EINVAL', /port 6.*be open/),
  );
  assert.equal(device.records.size, 0);
  assert.equal(device.count('IOCTL_GNTDEV_UNMAP_GRANT_REF'), 2);
  assert.deepEqual(device.signalled, []);
  assert.equal(openFiles(), before);
});

test('attempts to find the grant that is bad say no farewell', async () => {
  const device = new FakeGntdev();
  using gntdev = new Gntdev(device);
  device.bad.add(1005);
  const farewell = { byte: 0, channel: channelOf() };
  await assert.rejects(
    gntdev.map({ domid, refs: refsOf(8), writable: true, farewell }),
    (error) => error instanceof GrantMapError && error.index === 5,
  );
  assert.equal(device.count(SET_GNTDEV), 0);
  assert.deepEqual(device.signalled, []);
});

test('the end of the devices says every farewell', async () => {
  const gntdevFile = new FakeGntdev();
  const gntdev = new Gntdev(gntdevFile);
  const gntallocFile = new FakeGntalloc();
  const gntalloc = new Gntalloc(gntallocFile);
  const farewell = { byte: 17, channel: channelOf() };
  await gntdev.map({ domid, refs: refsOf(1), writable: true, farewell });
  await gntalloc.share({ domid, pages: 1, writable: false, farewell });
  gntdev[Symbol.dispose]();
  gntalloc[Symbol.dispose]();
  assert.deepEqual([gntdevFile.signalled, gntallocFile.signalled], [[5], [5]]);
  assert.equal(farewell.channel.notified, 0);
});

test('a farewell outside of its pages is never asked for', async () => {
  const [gntdevFile, gntallocFile] = [new FakeGntdev(), new FakeGntalloc()];
  using gntdev = new Gntdev(gntdevFile);
  using gntalloc = new Gntalloc(gntallocFile);
  for (const byte of [-1, 0.5, 2 * PAGE_SIZE]) {
    const farewell = { byte, channel: channelOf() };
    await assert.rejects(
      gntdev.map({ domid, refs: refsOf(2), writable: true, farewell }),
      /farewell at byte/,
    );
    await assert.rejects(
      gntalloc.share({ domid, pages: 2, writable: true, farewell }),
      /farewell at byte/,
    );
  }
  assert.deepEqual([...gntdevFile.seen, ...gntallocFile.seen], []);
});

/** Sharing over a grant table that can be looked at, or not. */
function rig({ observed = true }: { observed?: boolean } = {}) {
  const kernel = new FakeKernel();
  const device = new FakeGntalloc(kernel.table);
  let looks = 0;
  let observer: GrantObserver | undefined;
  const gntalloc = new Gntalloc(device, () => {
    looks += 1;
    if (observed) observer ??= GrantObserver.open(kernel.open, 'PV');
    return observer;
  });
  return { table: kernel.table, device, gntalloc, looks: () => looks };
}

test('giving shared pages up clears the byte and signals, once, by the kernel', async () => {
  const { device, gntalloc, looks } = rig();
  const farewell = { byte: PAGE_SIZE + 3, channel: channelOf() };
  const shared = await gntalloc.share({ domid, pages: 2, writable: true, farewell });
  shared.bytes[farewell.byte] = 1;
  shared.bytes[farewell.byte - 1] = 2;
  await shared[Symbol.asyncDispose]();
  await shared[Symbol.asyncDispose]();
  assert.deepEqual(device.signalled, [5]);
  assert.equal(farewell.channel.notified, 0);
  assert.equal(byteOf(device, farewell.byte), 0);
  assert.equal(byteOf(device, farewell.byte - 1), 2);
  assert.equal(looks(), 0, 'nobody asked what the peer maps');
});

test('a share whose farewell cannot be set is undone, and nobody is told', async () => {
  const { device, gntalloc } = rig();
  const before = openFiles();
  const farewell = { byte: 0, channel: channelOf(6) };
  await assert.rejects(
    gntalloc.share({ domid, pages: 2, writable: true, farewell }),
    refused('EINVAL', /port 6.*SET_UNMAP_NOTIFY.*be open/),
  );
  assert.equal(device.records.size, 0);
  assert.deepEqual(device.signalled, []);
  assert.equal(openFiles(), before);
});

test('shared pages that the peer maps are held, and given up when it has let go', async () => {
  const { table, device, gntalloc } = rig();
  const shared = await gntalloc.share({ domid, pages: 4, writable: false });
  const stale = shared.bytes;
  stale[0] = 9;
  for (const ref of shared.refs.slice(1)) table.map(ref);
  assert.deepEqual(await shared.end(), { heldPages: 3, evidence: 'grant table' });
  assert.equal(stale[0], 0, 'our view is revoked at once');
  assert.throws(() => shared.bytes, /closed mapping/);
  table.unmap(shared.refs[1]!);
  assert.deepEqual(await shared.end(), { heldPages: 2, evidence: 'grant table' });
  assert.equal(device.count(DEALLOC), 0);
  for (const ref of shared.refs.slice(2)) table.unmap(ref);
  for (let i = 0; i < 2; i++) {
    assert.deepEqual(await shared.end(), { heldPages: 0, evidence: 'grant table' });
  }
  await shared[Symbol.asyncDispose]();
  assert.equal(device.count(DEALLOC), 1);
  assert.equal(device.records.size, 0);
  assert(shared.refs.every((ref) => table.read(ref).flags === 0));
});

test('a peer that waits for the farewell before it lets go gets it from the first try, once', async () => {
  const { table, device, gntalloc } = rig();
  const farewell = { byte: 6, channel: channelOf() };
  const shared = await gntalloc.share({ domid, pages: 1, writable: true, farewell });
  shared.bytes[6] = 1;
  table.map(shared.refs[0]!);
  for (let i = 0; i < 2; i++) assert.equal((await shared.end()).heldPages, 1);
  assert.equal(farewell.channel.notified, 1);
  assert.equal(byteOf(device, 6), 0);
  table.unmap(shared.refs[0]!);
  assert.equal((await shared.end()).heldPages, 0);
  assert.equal(farewell.channel.notified, 1);
  assert.deepEqual(device.signalled, [], 'the kernel was told that it is said');
});

test('a kernel that does not take the farewell back is asked again, before anything is given up', async () => {
  const { device, gntalloc } = rig();
  const farewell = { byte: 0, channel: channelOf() };
  const shared = await gntalloc.share({ domid, pages: 1, writable: true, farewell });
  const stale = shared.bytes;
  stale[1] = 1;
  device.planned.set(SET_GNTALLOC, ['EIO']);
  await assert.rejects(shared.end(), refused('EIO', /taking back a farewell/));
  assert.equal(stale[1], 0);
  assert.equal(device.count(DEALLOC), 0);
  assert.equal((await shared.end()).heldPages, 0);
  assert.equal(farewell.channel.notified, 1);
  assert.deepEqual(device.signalled, []);
});

test('disposing gives up what is held; the kernel keeps the pages for who maps them', async () => {
  const { table, device, gntalloc } = rig();
  const shared = await gntalloc.share({ domid, pages: 2, writable: true });
  table.map(shared.refs[0]!);
  assert.equal((await shared.end()).heldPages, 1);
  await shared[Symbol.asyncDispose]();
  await shared[Symbol.asyncDispose]();
  assert.equal(device.count(DEALLOC), 1);
  assert.equal(device.records.size, 0);
  assert.equal((await shared.end()).heldPages, 0, 'it is not ours to ask any more');
});

test('a page mapped between the look and the end is held until its entry is free', async () => {
  const { table, device, gntalloc } = rig();
  const shared = await gntalloc.share({ domid, pages: 2, writable: true });
  const plain = device.ioctl.bind(device);
  device.ioctl = (request, context) => {
    if (request.name === DEALLOC) table.map(shared.refs[1]!);
    return plain(request, context);
  };
  assert.deepEqual(await shared.end(), { heldPages: 1, evidence: 'grant table' });
  table.unmap(shared.refs[1]!);
  table.end(shared.refs[1]!);
  assert.deepEqual(await shared.end(), { heldPages: 0, evidence: 'grant table' });
  assert.equal(device.count(DEALLOC), 1);
});

test('an end that the driver refuses is tried again', async () => {
  const { device, gntalloc } = rig();
  const shared = await gntalloc.share({ domid, pages: 2, writable: true });
  device.planned.set(DEALLOC, ['ENOMEM']);
  await assert.rejects(shared.end(), refused('ENOMEM', /ending access/));
  assert.equal(device.records.size, 1);
  assert.equal((await shared.end()).heldPages, 0);
  assert.equal(device.records.size, 0);
});

test('where nobody can look the driver is believed, and says so', async () => {
  const { table, device, gntalloc } = rig({ observed: false });
  const farewell = { byte: 0, channel: channelOf() };
  const shared = await gntalloc.share({ domid, pages: 2, writable: true, farewell });
  table.map(shared.refs[0]!);
  assert.deepEqual(await shared.end(), { heldPages: 0, evidence: 'driver' });
  assert.equal(device.records.size, 0);
  assert.equal(farewell.channel.notified + device.signalled.length, 1);
});
