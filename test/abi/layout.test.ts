// The layout language: for every declared struct and union, and for the language itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  displEvt,
  displReq,
  displResp,
  displSring,
  grefsPerDirectoryPage,
  pageDirectory,
  XENDISPL_IN_RING_LEN,
} from '../../src/abi/displif.ts';
import { XEN_ERRNO, xenErrnoName } from '../../src/abi/errno.ts';
import { ioctlGntallocAllocGref } from '../../src/abi/gntalloc.ts';
import { ioctlGntdevMapGrantRef } from '../../src/abi/gntdev.ts';
import { gntstName } from '../../src/abi/grant-table.ts';
import { headers } from '../../src/abi/index.ts';
import { kbdMotion, kbdMtouch } from '../../src/abi/kbdif.ts';
import {
  ANONYMOUS,
  type AnyLayout,
  type AnyType,
  array,
  bytes,
  type FieldSpecs,
  i8,
  i16,
  i32,
  isLayout,
  type Scalar,
  struct,
  u8,
  u16,
  u32,
  u64,
  union,
} from '../../src/abi/layout.ts';
import { ringSlots } from '../../src/abi/ring.ts';

const allLayouts = [...headers('x86_64'), ...headers('arm64')].flatMap((header) => header.layouts);

/** Bytes of foreign memory on either side of what a test writes. */
const MARGIN = 16;
const MARK = 0xa5;

function isScalar(type: AnyType): type is AnyType & Scalar<number | bigint> {
  return type.kind === 'scalar';
}

/** Values that reading `type` may give. */
function valuesOf(type: AnyType): fc.Arbitrary<unknown> {
  if (isScalar(type)) {
    const { min, max } = type;
    return typeof min === 'bigint'
      ? fc.bigInt({ min, max: BigInt(max) })
      : fc.integer({ min, max: Number(max) });
  }
  if (isLayout(type)) return type.kind === 'union' ? bytesOf(type.size) : recordsOf(type.specs);
  if (type.kind === 'bytes') return bytesOf(type.size);
  assert.ok('element' in type && 'length' in type, `no values for ${type.kind}`);
  const [element, length] = [type.element as AnyType, type.length as number];
  return fc.array(valuesOf(element), { minLength: length, maxLength: length });
}

function bytesOf(length: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: length, maxLength: length });
}

function recordsOf(specs: FieldSpecs): fc.Arbitrary<unknown> {
  const valued = Object.entries(specs).filter(
    ([, [, type]]) => type.kind !== 'reserved' && type.kind !== 'tail',
  );
  return fc.record(Object.fromEntries(valued.map(([name, [, type]]) => [name, valuesOf(type)])), {
    noNullPrototype: true,
  });
}

/** Memory full of `fill`, with the margins marked. */
function memory(size: number, fill: number): DataView {
  const all = new Uint8Array(size + 2 * MARGIN).fill(MARK);
  all.fill(fill, MARGIN, MARGIN + size);
  return new DataView(all.buffer);
}

function contents(view: DataView): number[] {
  return [...new Uint8Array(view.buffer)];
}

/** Bytes that a writer must set: all, but a tail's. */
function writtenSize(layout: AnyLayout): number {
  const last = Object.values(layout.specs).at(-1);
  return last?.[1].kind === 'tail' ? last[0] : layout.size;
}

for (const layout of new Set(allLayouts)) {
  test(`${layout.name}: what is written is what is read, and no other byte is touched`, () => {
    const runs = layout.size > 1024 ? 5 : 100;
    fc.assert(
      fc.property(valuesOf(layout), (value) => {
        const [view, other] = [memory(layout.size, 0x00), memory(layout.size, 0xff)];
        layout.write(view, MARGIN, value as never);
        layout.write(other, MARGIN, value as never);
        assert.deepEqual(layout.read(view, MARGIN), value);
        const written = writtenSize(layout);
        const untouched = memory(layout.size, 0xff);
        const expected = contents(untouched);
        expected.splice(MARGIN, written, ...contents(view).slice(MARGIN, MARGIN + written));
        assert.deepEqual(contents(other), expected);
      }),
      { numRuns: runs },
    );
  });
}

test('a value that its type cannot hold is refused and nothing is written', () => {
  const limits: readonly [Scalar<number>, number, number][] = [
    [u8, 0, 255],
    [i8, -128, 127],
    [u16, 0, 65535],
    [i16, -32768, 32767],
    [u32, 0, 2 ** 32 - 1],
    [i32, -(2 ** 31), 2 ** 31 - 1],
  ];
  const view = new DataView(new ArrayBuffer(8));
  for (const [type, min, max] of limits) {
    const { get, set } = type.at(0);
    for (const value of [min, max]) {
      set(view, 0, value);
      assert.equal(get(view, 0), value, type.cName);
    }
    for (const value of [min - 1, max + 1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      assert.throws(() => set(view, 0, value), RangeError, `${type.cName} ${value}`);
    }
    assert.equal(get(view, 0), max);
  }
  const { get, set } = u64.at(0);
  set(view, 0, 2n ** 64n - 1n);
  for (const value of [-1n, 2n ** 64n]) assert.throws(() => set(view, 0, value), RangeError);
  assert.equal(get(view, 0), 2n ** 64n - 1n);
});

test('reading and writing beyond the view throws', () => {
  const view = new DataView(new ArrayBuffer(63));
  assert.throws(() => displReq.read(view, 0), RangeError);
  assert.throws(() => displReq.read(view, -1), RangeError);
  assert.throws(() => displResp.write(view, 0, { id: 1, operation: 2, status: 0 }), RangeError);
});

test('numbers are little-endian', () => {
  const view = new DataView(new ArrayBuffer(64));
  displReq.write(view, 0, {
    id: 0x0102,
    operation: 0x15,
    op: { pg_flip: { fb_cookie: 0x1112131415161718n } },
  });
  assert.deepEqual(
    [...new Uint8Array(view.buffer, 0, 17)],
    [2, 1, 0x15, 0, 0, 0, 0, 0, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0],
  );
});

test('a whole message is written, so that a stale slot does not show through', () => {
  const view = memory(displResp.size, 0xff);
  displResp.write(view, MARGIN, { id: 7, operation: 0x10, status: -22 });
  const slot = contents(view).slice(MARGIN, MARGIN + displResp.size);
  assert.deepEqual(slot.slice(0, 8), [7, 0, 0x10, 0, 0xea, 0xff, 0xff, 0xff]);
  assert.deepEqual(slot.slice(8), Array(56).fill(0));
});

test("the compiler's holes are written as zero", () => {
  const view = memory(kbdMotion.size, 0xff);
  kbdMotion.write(view, MARGIN, { type: 1, rel_x: -1, rel_y: -1, rel_z: -1 });
  assert.deepEqual(contents(view).slice(MARGIN, MARGIN + 5), [1, 0, 0, 0, 0xff]);
});

test("a member of a nested union is reached at the outer struct's offsets", () => {
  const { dbuf_create } = displReq.fields.op.fields;
  assert.equal(dbuf_create.offset, 8);
  assert.equal(dbuf_create.fields.gref_directory.offset, 36);
  const view = new DataView(new ArrayBuffer(128));
  dbuf_create.fields.gref_directory.set(view, 64, 99);
  assert.equal(view.getUint32(64 + 36, true), 99);
  assert.equal(dbuf_create.get(view, 64).gref_directory, 99);
  const { pos } = kbdMtouch.fields.u.fields;
  assert.deepEqual([pos.fields.abs_x.offset, pos.fields.abs_y.offset], [8, 12]);
});

test('a union takes raw bytes, or exactly one member and zeros', () => {
  const either = union('either', 'test', { small: [0, u8, ''], wide: [0, u32, ''] });
  const view = new DataView(new ArrayBuffer(4));
  either.write(view, 0, { wide: 0x01020304 });
  assert.deepEqual([...either.read(view, 0)], [4, 3, 2, 1]);
  either.write(view, 0, { small: 9 });
  assert.deepEqual([...either.read(view, 0)], [9, 0, 0, 0]);
  either.write(view, 0, Uint8Array.of(1, 2, 3, 4));
  assert.equal(either.fields.wide.get(view, 0), 0x04030201);
  assert.throws(() => either.write(view, 0, Uint8Array.of(1, 2, 3)), RangeError);
  assert.throws(() => either.write(view, 0, { small: 1, wide: 2 }), RangeError);
  assert.throws(() => either.write(view, 0, { huge: 1 } as never), RangeError);
});

test('reading copies bytes out, even of shared memory', () => {
  const shared = new SharedArrayBuffer(64);
  const value = displEvt.read(new DataView(shared), 0);
  new Uint8Array(shared).fill(0xff);
  assert.deepEqual([...value.op], Array(56).fill(0));
});

test('tail elements are reached by index, and the head leaves them alone', () => {
  const size = ioctlGntallocAllocGref.sizeWith(3);
  const view = new DataView(new ArrayBuffer(size));
  const { gref_ids } = ioctlGntallocAllocGref.fields;
  [101, 102, 103].forEach((gref, i) => {
    gref_ids.setAt(view, 0, i, gref);
  });
  ioctlGntallocAllocGref.write(view, 0, { domid: 1, flags: 1, count: 3, index: 0n });
  assert.deepEqual(
    [0, 1, 2].map((i) => gref_ids.getAt(view, 0, i)),
    [101, 102, 103],
  );
});

test('a struct with a tail is never smaller than C says, and grows with the tail', () => {
  assert.deepEqual([0, 1, 2, 2025].map(ioctlGntdevMapGrantRef.sizeWith), [
    24,
    24,
    32,
    16 + 2025 * 8,
  ]);
  assert.deepEqual([1, 2, 3].map(ioctlGntallocAllocGref.sizeWith), [24, 24, 32]);
  assert.throws(() => kbdMotion.sizeWith(1), /xenkbd_motion has no tail/);
});

test('a table that C contradicts cannot be declared', () => {
  assert.throws(
    () => struct('wrong', 'test', { a: [0, u8, ''], b: [1, u32, ''] }),
    /struct wrong: b declared at 1, C places it at 4/,
  );
  assert.throws(
    () => struct('gap', 'test', { a: [0, u8, ''], b: [2, u8, ''] }),
    /struct gap: b declared at 2, C places it at 1/,
  );
  assert.throws(() => union('wrong', 'test', { a: [4, u32, ''] }), /a declared at 4, not 0/);
});

test('arrays are read and written whole or by element', () => {
  const pair = struct(ANONYMOUS, 'test', { tag: [0, u8, ''], at: [2, array(u16, 2), ''] });
  const view = new DataView(new ArrayBuffer(pair.size));
  pair.write(view, 0, { tag: 1, at: [2, 3] });
  assert.deepEqual(pair.read(view, 0), { tag: 1, at: [2, 3] });
  assert.equal(pair.fields.at.getAt(view, 0, 1), 3);
  assert.throws(() => pair.write(view, 0, { tag: 1, at: [2] }), RangeError);
  const { set } = bytes(2).at(0);
  assert.throws(() => set(view, 0, Uint8Array.of(1)), RangeError);
});

test('the geometry of displif', () => {
  assert.equal(ringSlots(displSring, 4096), 32);
  assert.equal(XENDISPL_IN_RING_LEN, 63);
  assert.equal(grefsPerDirectoryPage, 1023);
  assert.equal(pageDirectory.fields.gref.offset + 4 * grefsPerDirectoryPage, 4096);
});

test('constants have names for messages', () => {
  assert.equal(gntstName(-3), 'GNTST_bad_gntref');
  assert.equal(gntstName(-99), '-99');
  assert.equal(xenErrnoName(XEN_ERRNO.XEN_EINVAL), 'XEN_EINVAL');
});
