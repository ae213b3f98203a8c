// Mapping grants over a kernel that refuses on purpose; the mappings themselves are real.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { Gntdev } from '../../src/linux/gntdev.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { GrantMapError } from '../../src/xen/domain.ts';
import { domId, gref } from '../../src/xen/ids.ts';
import { FakeGntdev } from './fake-devices.ts';

const domid = domId(7);
const refsOf = (numbers: readonly number[]) => numbers.map(gref);
const firstWord = (bytes: Uint8Array, page: number) =>
  new DataView(bytes.buffer, bytes.byteOffset).getUint32(page * PAGE_SIZE, true);

/** The permissions of this process's mappings of the fake's memory, as the kernel lists them. */
function mappings(): string[] {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes('fake-gntdev'))
    .map((line) => line.split(' ')[1]!);
}

test('the pages of all refs are one view in their order, shared and readable', async () => {
  const device = new FakeGntdev();
  using gntdev = new Gntdev(device);
  const refs = refsOf([900, 12, 13, 500]);
  await using mapping = await gntdev.map({ domid, refs, writable: true });
  assert.equal(mapping.pages, 4);
  assert.deepEqual(
    [0, 1, 2, 3].map((page) => firstWord(mapping.bytes, page)),
    [900, 12, 13, 500],
  );
  assert.deepEqual(mappings(), ['rw-s']);
  await using forReading = await gntdev.map({ domid, refs, writable: false });
  assert.deepEqual(mappings().sort(), ['r--s', 'rw-s']);
  assert.equal(forReading.writable, false);
});

test('unmapping takes the pages away before the record, and a stale view reads zeros', async () => {
  const device = new FakeGntdev();
  using gntdev = new Gntdev(device);
  const mapping = await gntdev.map({ domid, refs: refsOf([41]), writable: true });
  const stale = mapping.bytes;
  let mappedAtDrop: string[] | undefined;
  device.onUnmap = () => {
    mappedAtDrop = mappings();
  };
  await mapping[Symbol.asyncDispose]();
  await mapping[Symbol.asyncDispose]();
  assert.deepEqual(mappedAtDrop, []);
  assert.equal(device.records.size, 0);
  assert.equal(device.count('IOCTL_GNTDEV_UNMAP_GRANT_REF'), 1);
  assert.equal(firstWord(stale, 0), 0);
  assert.throws(() => mapping.bytes, /closed mapping/);
});

test('of any refs with any bad ones, the first bad one is named and nothing stays mapped', async () => {
  const cases = fc
    .integer({ min: 1, max: 200 })
    .chain((count) =>
      fc.tuple(fc.constant(count), fc.uniqueArray(fc.nat(count - 1), { minLength: 1 })),
    );
  await fc.assert(
    fc.asyncProperty(cases, async ([count, badIndices]) => {
      const device = new FakeGntdev();
      using gntdev = new Gntdev(device);
      for (const index of badIndices) device.bad.add(1000 + index);
      const refs = refsOf(Array.from({ length: count }, (_, i) => 1000 + i));
      const first = Math.min(...badIndices);
      await assert.rejects(gntdev.map({ domid, refs, writable: true }), (error) => {
        assert(error instanceof GrantMapError, String(error));
        assert.deepEqual([error.index, error.ref], [first, 1000 + first]);
        assert.equal(error.status, 'GNTST_bad_gntref');
        return true;
      });
      assert.equal(device.records.size, 0);
      assert.deepEqual(mappings(), []);
      const attempts = device.count('IOCTL_GNTDEV_MAP_GRANT_REF');
      assert(attempts <= Math.ceil(Math.log2(count)) + 2, `${attempts} attempts for ${count}`);
      assert(device.pagesAsked <= 2 * count + 1, `${device.pagesAsked} pages for ${count}`);
    }),
    { numRuns: 50 },
  );
});

test('a grant that can be read but not mapped gives the errno, as the status is unknown', async () => {
  const device = new FakeGntdev();
  using gntdev = new Gntdev(device);
  device.bad.add(3);
  device.readOnly.add(3);
  await assert.rejects(
    gntdev.map({ domid, refs: refsOf([2, 3]), writable: true }),
    (error) => error instanceof GrantMapError && error.index === 1 && error.status === 'EINVAL',
  );
});

test('when each grant can be mapped but not all together, the host is short, not the guest wrong', async () => {
  const device = new FakeGntdev();
  using gntdev = new Gntdev(device);
  device.maptrack = 10;
  await using _others = await gntdev.map({ domid, refs: refsOf([1, 2]), writable: true });
  const refs = refsOf([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  await assert.rejects(
    gntdev.map({ domid, refs, writable: true }),
    (error) => error instanceof SysError && /maptrack/.test(error.message),
  );
  assert.equal(device.records.size, 1);
});

test('a request beyond the limit of the module is several records and one view', async () => {
  const device = new FakeGntdev();
  device.limit = 3;
  using gntdev = new Gntdev(device, 3);
  const refs = refsOf([1, 2, 3, 4, 5, 6, 7, 8]);
  const mapping = await gntdev.map({ domid, refs, writable: true });
  assert.deepEqual(
    refs.map((_, page) => firstWord(mapping.bytes, page)),
    [...refs],
  );
  assert.deepEqual([...device.records.values()], [3, 3, 2]);
  const stale = mapping.bytes;
  let mappedAtDrop = 0;
  device.onUnmap = () => {
    mappedAtDrop += mappings().length;
  };
  await mapping[Symbol.asyncDispose]();
  assert.equal(mappedAtDrop, 0);
  assert.equal(device.records.size, 0);
  assert(refs.every((_, page) => firstWord(stale, page) === 0));
});

test('a bad ref of a split request is found, and no record stays', async () => {
  for (const bad of [1, 4, 6, 8]) {
    const device = new FakeGntdev();
    device.limit = 3;
    device.bad.add(bad);
    using gntdev = new Gntdev(device, 3);
    const refs = refsOf([1, 2, 3, 4, 5, 6, 7, 8]);
    await assert.rejects(
      gntdev.map({ domid, refs, writable: true }),
      (error) => error instanceof GrantMapError && error.ref === bad,
    );
    assert.equal(device.records.size, 0);
    assert.deepEqual(mappings(), []);
  }
});

test('a limit that was lowered since it was read says which limit', async () => {
  const device = new FakeGntdev();
  using gntdev = new Gntdev(device, 4);
  device.limit = 3;
  await assert.rejects(
    gntdev.map({ domid, refs: refsOf([1, 2, 3, 4]), writable: true }),
    (error) => error instanceof SysError && error.remedy?.includes('parameters/limit') === true,
  );
});

test('closing the device unmaps everything first', async () => {
  const device = new FakeGntdev();
  const gntdev = new Gntdev(device);
  const stale = (await gntdev.map({ domid, refs: refsOf([1, 2]), writable: true })).bytes;
  await gntdev.map({ domid, refs: refsOf([3]), writable: false });
  gntdev[Symbol.dispose]();
  assert.deepEqual(mappings(), []);
  assert.equal(device.records.size, 0);
  assert.equal(device.closed, true);
  assert.equal(firstWord(stale, 0), 0);
});

test('unmapping that fails at the record is tried again with what is left of it, and then is over', async () => {
  const device = new FakeGntdev();
  device.limit = 2;
  using gntdev = new Gntdev(device, 2);
  const refs = refsOf([1, 2, 3, 4, 5]);
  const mapping = await gntdev.map({ domid, refs, writable: false });
  const stale = mapping.bytes;
  device.planned.set('IOCTL_GNTDEV_UNMAP_GRANT_REF', [undefined, 'EINTR']);
  await assert.rejects(
    mapping[Symbol.asyncDispose](),
    (error) => error instanceof SysError && error.errnoName === 'EINTR',
  );
  assert.equal(device.records.size, 1, 'the other records are gone');
  assert.equal(stale[0], 0);
  assert.deepEqual(mappings(), []);
  await mapping[Symbol.asyncDispose]();
  assert.equal(device.records.size, 0);
  await mapping[Symbol.asyncDispose]();
  assert.equal(device.count('IOCTL_GNTDEV_UNMAP_GRANT_REF'), 4);
});

test('records that closing the device could not drop go with it, and nobody asks for them afterwards', async () => {
  const device = new FakeGntdev();
  const gntdev = new Gntdev(device);
  const mapping = await gntdev.map({ domid, refs: refsOf([1]), writable: false });
  const other = await gntdev.map({ domid, refs: refsOf([2]), writable: false });
  device.planned.set('IOCTL_GNTDEV_UNMAP_GRANT_REF', ['EIO']);
  assert.throws(() => gntdev[Symbol.dispose](), SysError);
  assert.equal(device.closed, true);
  assert.deepEqual([...device.records.values()], [1], 'only the one that failed');
  for (const each of [mapping, other]) await each[Symbol.asyncDispose]();
  assert.equal(device.count('IOCTL_GNTDEV_UNMAP_GRANT_REF'), 2);
});
