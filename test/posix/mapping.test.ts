import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  close,
  ftruncate,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  memfdCreate,
  mmap,
  munmap,
  PROT_READ,
  PROT_WRITE,
  viewOf,
} from '../../src/posix/libc.ts';
import { areasInUse, giveBackAreas, takeArea } from '../../src/posix/map-areas.ts';
import { Mapping, PAGE_SIZE } from '../../src/posix/mapping.ts';
import { SysError } from '../../src/runtime/errors.ts';

const context = { context: 'mapping test' };

function memfd(pages: number): number {
  const fd = memfdCreate('mapping-test', context);
  ftruncate(fd, pages * PAGE_SIZE, context);
  return fd;
}

test('scattered pages of a file show as one contiguous view, and writes go both ways', () => {
  const fd = memfd(4);
  using straight = new Mapping(4);
  straight.place({ fd, offset: 0, atPage: 0, pages: 4, writable: true });
  using scattered = new Mapping(2);
  scattered.place({ fd, offset: 3 * PAGE_SIZE, atPage: 0, pages: 1, writable: true });
  scattered.place({ fd, offset: 1 * PAGE_SIZE, atPage: 1, pages: 1, writable: false });
  close(fd, context);

  straight.bytes[3 * PAGE_SIZE + 5] = 7;
  straight.bytes[1 * PAGE_SIZE + 6] = 8;
  assert.equal(scattered.bytes[5], 7);
  assert.equal(scattered.bytes[PAGE_SIZE + 6], 8);
  scattered.bytes[9] = 9;
  assert.equal(straight.bytes[3 * PAGE_SIZE + 9], 9);
});

test('a view kept beyond its mapping reads zeros and writes to nobody', () => {
  const fd = memfd(1);
  using other = new Mapping(1);
  other.place({ fd, offset: 0, atPage: 0, pages: 1, writable: true });
  const mapping = new Mapping(1);
  mapping.place({ fd, offset: 0, atPage: 0, pages: 1, writable: true });
  close(fd, context);
  const stale = mapping.bytes;
  stale[0] = 1;

  mapping[Symbol.dispose]();
  mapping[Symbol.dispose]();
  assert.equal(stale[0], 0);
  stale[0] = 2;
  assert.equal(other.bytes[0], 1);
  assert.throws(() => mapping.bytes, /closed mapping/);
});

test('a failed system call says what, why and what to do', () => {
  using mapping = new Mapping(1);
  assert.throws(
    () => mapping.place({ fd: 9999, offset: 0, atPage: 0, pages: 1, writable: false }),
    (error) => error instanceof SysError && error.errnoName === 'EBADF' && error.call === 'mmap',
  );
});

test('a mapping made of a stretch of a file shows it and is revoked like any other', () => {
  const fd = memfd(3);
  using whole = new Mapping(3, { fd, offset: 0, writable: true });
  const stretch = new Mapping(2, { fd, offset: PAGE_SIZE, writable: false });
  close(fd, context);
  whole.bytes[PAGE_SIZE + 1] = 5;
  const stale = stretch.bytes;
  assert.equal(stale[1], 5);
  stretch[Symbol.dispose]();
  assert.equal(stale[1], 0);
});

test('a stretch that cannot be mapped is refused and takes no addresses', () => {
  const fd = memfd(1);
  assert.throws(
    () => new Mapping(1, { fd, offset: 1, writable: true }),
    (error) => error instanceof SysError && error.errnoName === 'EINVAL',
  );
  close(fd, context);
});

/** How the kernel lists the page at `address`: its permissions, or undefined when nothing is there. */
function permissionsAt(address: bigint): string | undefined {
  for (const line of readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const found = /^([0-9a-f]+)-([0-9a-f]+) (\S+)/.exec(line);
    if (found === null) continue;
    const [start, end] = [BigInt(`0x${found[1]}`), BigInt(`0x${found[2]}`)];
    if (address >= start && address < end) return found[3];
  }
  return undefined;
}

/** A mapping of 6 pages: two shown, two as a failed call leaves them, two reserved. */
function withHole(): { mapping: Mapping; hole: bigint; fail: () => void } {
  const fd = memfd(2);
  const mapping = new Mapping(6);
  mapping.place({ fd, offset: 0, atPage: 0, pages: 2, writable: true });
  close(fd, context);
  const hole = mapping.address + BigInt(2 * PAGE_SIZE);
  munmap(hole, 2 * PAGE_SIZE, context);
  const nothing = { fd: 9999, offset: 0, writable: true };
  const fail = () =>
    assert.throws(() => mapping.place({ ...nothing, atPage: 2, pages: 2 }), /EBADF/);
  return { mapping, hole, fail };
}

test('a hole that a failed call leaves is taken back at once', () => {
  const { mapping, hole, fail } = withHole();
  assert.equal(permissionsAt(hole), undefined);
  fail();
  assert.equal(permissionsAt(hole), '---p', 'reserved again');
  assert.equal(permissionsAt(hole + BigInt(PAGE_SIZE)), '---p');
  mapping[Symbol.dispose]();
  assert.equal(permissionsAt(hole), 'rw-p', 'and revoked with the rest');
});

test('what has fallen into a hole meanwhile is never touched', () => {
  const { mapping, hole, fail } = withHole();
  const length = PAGE_SIZE;
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  const prot = PROT_READ | PROT_WRITE;
  mmap({ address: hole, length, prot, flags, fd: -1, offset: 0, ...context });
  const others = new Uint8Array(viewOf(hole, length));
  others.fill(7);
  fail();
  assert.throws(() => mapping.bytes, /lost a part/);
  mapping[Symbol.dispose]();
  assert(others.every((byte) => byte === 7));
  assert.equal(permissionsAt(mapping.address), 'rw-p', 'what is ours is revoked');
  assert.equal(permissionsAt(hole + BigInt(2 * PAGE_SIZE)), 'rw-p', 'on both sides');
});

test('the process keeps entries of its memory map for itself: a mapping beyond them is refused, whole', () => {
  const fd = memfd(4);
  let taken = 0;
  const takeAllBut = (left: number) => {
    try {
      for (;;) {
        takeArea('test');
        taken += 1;
      }
    } catch (error) {
      assert(error instanceof SysError && error.errnoName === 'ENOMEM');
      assert.match(error.message, /vm\.max_map_count/);
    }
    giveBackAreas(left);
    taken -= left;
  };
  try {
    takeAllBut(3);
    const inUse = areasInUse();
    const mapping = new Mapping(4);
    mapping.place({ fd, offset: 0, atPage: 0, pages: 1, writable: true });
    mapping.place({ fd, offset: 2 * PAGE_SIZE, atPage: 2, pages: 1, writable: true });
    assert.equal(mapping.areas, 3);
    const more = { fd, offset: PAGE_SIZE, atPage: 1, pages: 1, writable: true };
    assert.throws(() => mapping.place(more), SysError);
    assert.throws(() => new Mapping(1), SysError);
    mapping[Symbol.dispose]();
    assert.equal(areasInUse(), inUse + 1, 'the addresses stay taken until no view can exist');
    new Mapping(1)[Symbol.dispose]();
  } finally {
    giveBackAreas(taken);
    close(fd, context);
  }
});
