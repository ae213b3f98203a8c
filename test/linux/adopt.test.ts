// Memory that somebody else made, handed over by a file descriptor: real memfds and real seals, and files that play
// dma-bufs where this computer has none.

import assert from 'node:assert/strict';
import { constants, openSync, readdirSync, readlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import koffi from 'koffi';
import { DMA_BUF_SYNC_END, DMA_BUF_SYNC_RW, DMA_BUF_SYNC_START } from '../../src/abi/dma-buf.ts';
import {
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
} from '../../src/abi/fcntl.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { BUFFER_FILES } from '../../src/linux/buffer-files.ts';
import { Lender } from '../../src/linux/lends.ts';
import { LinuxMemory } from '../../src/linux/memory.ts';
import { addSeals, close, ftruncate, memfdCreate, sealsOf } from '../../src/posix/libc.ts';
import { Mapping } from '../../src/posix/mapping.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { domId } from '../../src/xen/ids.ts';
import { FakeKernel } from './fake-dma-bufs.ts';

const context = { context: 'a test' };
const dup = koffi.load('libc.so.6').func('int dup(int)');

function rig() {
  const kernel = new FakeKernel();
  const { open, udmabufLimit, files } = kernel;
  const availablePages = () => 1e6;
  const memory = new LinuxMemory({ open, heaps: ['system'], udmabufLimit, availablePages, files });
  return { kernel, memory };
}

/** Opens what is opened once. */
async function warmUp(memory: LinuxMemory): Promise<void> {
  await (await memory.allocate({ pages: 1, contiguity: 'none' })).free();
}

/** A memfd of somebody else. */
function memfdOf(pages: number, { seals = 0, sealable = true } = {}): number {
  const fd = memfdCreate('picture', { ...context, sealable });
  ftruncate(fd, pages * PAGE_SIZE, context);
  if (seals !== 0) addSeals(fd, seals, context);
  return fd;
}

function openFiles(): string[] {
  const found = readdirSync('/proc/self/fd').flatMap((name) => {
    try {
      return [`${name} ${readlinkSync(`/proc/self/fd/${name}`)}`];
    } catch {
      // The descriptor by which the folder was read.
      return [];
    }
  });
  return found.sort();
}

function refused(errnoName: string, pattern: RegExp) {
  return (error: unknown) => {
    assert(error instanceof SysError, String(error));
    assert.equal(error.errnoName, errnoName);
    assert.match(error.message, pattern);
    return true;
  };
}

test('a memfd becomes a buffer that shows the very same memory, and goes without a trace', async () => {
  const { memory } = rig();
  const fd = memfdOf(3);
  using theirs = new Mapping(3, { fd, offset: 0, writable: true });
  theirs.bytes[2 * PAGE_SIZE] = 7;
  await warmUp(memory);
  const before = openFiles();
  const buffer = await memory.adopt(fd);
  assert.equal(buffer.pages, 3);
  assert.equal(buffer.contiguity.kind, 'none');
  assert.notEqual(buffer.fd, fd);
  const { bytes } = buffer;
  assert.equal(bytes[2 * PAGE_SIZE], 7);
  bytes[0] = 8;
  assert.equal(theirs.bytes[0], 8);
  assert.equal(sealsOf(fd, context), F_SEAL_SHRINK, 'what udmabuf needs, and no more');
  for (let i = 0; i < 2; i++) {
    assert.deepEqual(await buffer.free(), { heldPages: 0, evidence: 'driver' });
  }
  assert.equal(bytes[0], 0, 'our view is revoked');
  assert.equal(theirs.bytes[0], 8, 'theirs is not');
  assert.deepEqual(openFiles(), before);
  close(fd, context);
});

test("the buffer outlives the caller's descriptor", async () => {
  const { memory } = rig();
  for (const fd of [memfdOf(1), rig().kernel.newDmaBuf(1)]) {
    const buffer = await memory.adopt(fd);
    close(fd, context);
    assert.equal(buffer.pages, 1);
    await buffer.free();
  }
});

test('the same memory is the same buffer, by whatever descriptor, until it is freed', async () => {
  const { kernel, memory } = rig();
  await warmUp(memory);
  for (const fd of [memfdOf(2), kernel.newDmaBuf(2)]) {
    const before = openFiles();
    const buffer = await memory.adopt(fd);
    const other = dup(fd);
    const both = await Promise.all([memory.adopt(fd), memory.adopt(other)]);
    assert(both.every((each) => each === buffer));
    assert.equal(await memory.adopt(buffer.fd!), buffer, 'its own dma-buf, too');
    await buffer.free();
    const next = await memory.adopt(other);
    assert.notEqual(next, buffer);
    assert.equal(next.bytes.length, 2 * PAGE_SIZE);
    await next.free();
    close(other, context);
    assert.deepEqual(openFiles(), before);
  }
  const [one, two] = [await memory.adopt(memfdOf(1)), await memory.adopt(memfdOf(1))];
  assert.notEqual(one, two);
});

test('buffers of our own that come back are the very buffers', async () => {
  const { kernel, memory } = rig();
  const pool = await memory.createPool({ domid: domId(4), pages: 4 });
  const own = [await pool.allocate(2), await memory.allocate({ pages: 3, contiguity: 'none' })];
  kernel.absent.add('/dev/udmabuf');
  const heapOnly = new LinuxMemory({
    open: kernel.open,
    heaps: ['system'],
    availablePages: () => 1e6,
    files: kernel.files,
  });
  const ofHeap = await heapOnly.allocate({ pages: 3, contiguity: 'none' });
  for (const buffer of own) assert.equal(await memory.adopt(dup(buffer.fd!)), buffer);
  assert.equal(await heapOnly.adopt(ofHeap.fd!), ofHeap);
  assert.deepEqual(kernel.handedOver, []);
});

test("a memfd beyond udmabuf's limit is several dma-bufs and one view", async () => {
  const { memory } = rig();
  const fd = memfdOf(130);
  const buffer = await memory.adopt(fd);
  assert.equal(buffer.fd, undefined);
  assert.equal(buffer.bytes.length, 130 * PAGE_SIZE);
  assert.equal(await memory.adopt(fd), buffer);
  await buffer.free();
});

test('a view of a dma-buf is between the begin and the end of access', async () => {
  const { kernel, memory } = rig();
  const fd = kernel.newDmaBuf(2);
  using theirs = new Mapping(2, { fd, offset: 0, writable: true });
  const buffer = await memory.adopt(fd);
  const [file] = kernel.handedOver;
  assert.deepEqual(file!.syncs, []);
  buffer.bytes[5] = 6;
  assert.equal(theirs.bytes[5], 6);
  const begin = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW;
  assert.deepEqual(file!.syncs, [begin]);
  await buffer.free();
  assert.deepEqual(file!.syncs, [begin, DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW]);
  assert.equal(file!.closed, true);
});

test('a dma-buf without a view says so, and serves without', async () => {
  const { kernel, memory } = rig();
  const viewless = await memory.adopt(kernel.newViewlessDmaBuf(2));
  assert.throws(() => viewless.bytes, refused('ENODEV', /dma-buf of another.*gives no view/));
  assert.equal(viewless.pages, 2);
  assert.equal((await viewless.free()).heldPages, 0);
  const readOnly = await memory.adopt(kernel.newDmaBuf(1, { readOnly: true }));
  assert.throws(() => readOnly.bytes, refused('EACCES', /open for reading and writing/));
});

test('what is handed over can be lent, and is not given back before the loan is over', async () => {
  const { kernel, memory } = rig();
  const lender = new Lender({ open: kernel.open, observer: () => undefined });
  for (const fd of [memfdOf(70), kernel.newDmaBuf(3)]) {
    const buffer = await memory.adopt(fd);
    const loan = await lender.lend({ domid: domId(9), buffer, writable: true });
    assert.equal(loan.refs.length, buffer.pages);
    assert.deepEqual(await buffer.free(), { heldPages: buffer.pages, evidence: 'lent' });
    const again = await memory.adopt(fd);
    assert.notEqual(again, buffer, 'a freed buffer is of no use to who comes now');
    await again.free();
    await loan.end();
    assert.deepEqual(await buffer.free(), { heldPages: 0, evidence: 'driver' });
  }
});

test('seals that udmabuf cannot bear are refused in words, before anything is made', async () => {
  const { kernel, memory } = rig();
  await warmUp(memory);
  const cases: readonly (readonly [number, RegExp])[] = [
    [memfdOf(1, { seals: F_SEAL_SHRINK | F_SEAL_WRITE }), /sealed against writing/],
    [memfdOf(1, { seals: F_SEAL_FUTURE_WRITE }), /sealed against writing/],
    [memfdOf(1, { sealable: false }), /MFD_ALLOW_SEALING/],
    [memfdOf(1, { seals: F_SEAL_GROW | F_SEAL_SEAL }), /MFD_ALLOW_SEALING/],
  ];
  const before = openFiles();
  for (const [fd, pattern] of cases) {
    const seals = sealsOf(fd, context);
    await assert.rejects(memory.adopt(fd), refused('EINVAL', pattern));
    assert.equal(sealsOf(fd, context), seals);
  }
  assert.deepEqual(openFiles(), before);
  const sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  const ready = await memory.adopt(memfdOf(1, { seals: sealed }));
  assert.equal(ready.pages, 1);
  kernel.udmabufsLeft = 0;
  const late = memfdOf(1);
  const open = openFiles();
  await assert.rejects(memory.adopt(late), refused('ENOMEM', /dma-buf of 1 pages/));
  assert.deepEqual(openFiles(), open);
});

test('a size that is no whole number of pages is refused, and so is what is no memory at all', async () => {
  const { kernel, memory } = rig();
  const [empty, odd] = [memfdOf(0), memfdOf(1)];
  ftruncate(odd, PAGE_SIZE + 1, context);
  for (const fd of [empty, odd, kernel.newDmaBuf(0)]) {
    await assert.rejects(memory.adopt(fd), refused('EINVAL', /must be a multiple of 4096/));
  }
  assert.equal(sealsOf(odd, context), 0, 'not sealed for nothing');
  const folder = openSync(tmpdir(), constants.O_RDONLY);
  await assert.rejects(memory.adopt(folder), refused('EINVAL', /which is \/.*dma-buf or a memfd/));
  close(folder, context);
  await assert.rejects(memory.adopt(folder), refused('EBADF', /descriptor \d+/));
  await assert.rejects(memory.adopt(-1), refused('EBADF', /descriptor -1/));
});

test('without udmabuf a memfd is refused and left as it is; a dma-buf needs none', async () => {
  const { kernel, memory } = rig();
  kernel.absent.add('/dev/udmabuf');
  const fd = memfdOf(1);
  const before = openFiles();
  await assert.rejects(memory.adopt(fd), refused('EOPNOTSUPP', /udmabuf/));
  assert.equal(sealsOf(fd, context), 0);
  assert.deepEqual(openFiles(), before);
  assert.equal((await memory.adopt(kernel.newDmaBuf(1))).pages, 1);
});

test('the end of the domain closes what was handed over, and only that', async () => {
  const { kernel, memory } = rig();
  const fds = [memfdOf(1), kernel.newDmaBuf(1)];
  const before = openFiles();
  for (const fd of fds) await memory.adopt(fd);
  await memory[Symbol.asyncDispose]();
  assert.deepEqual(openFiles(), before);
});

test('the kernel itself tells a memfd from a file, and a duplicate from another memfd', () => {
  const [fd, other] = [memfdOf(2), memfdOf(2)];
  const identity = BUFFER_FILES.identify(fd);
  assert.deepEqual([identity.kind, identity.sizeBytes], ['memfd', 2 * PAGE_SIZE]);
  const own = BUFFER_FILES.duplicate(fd);
  assert.notEqual(own.fd, fd);
  assert.deepEqual(BUFFER_FILES.identify(own.fd), identity);
  own[Symbol.dispose]();
  assert.notEqual(BUFFER_FILES.identify(other).key, identity.key);
  assert.throws(() => BUFFER_FILES.identify(own.fd), refused('EBADF', /dma-buf or a memfd/));
  for (const each of [fd, other]) close(each, context);
});
