import assert from 'node:assert/strict';
import { test } from 'node:test';
import { close, ftruncate, memfdCreate } from '../../src/posix/libc.ts';
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
