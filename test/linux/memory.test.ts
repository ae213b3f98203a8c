// Buffers and pools over fake devices and real memfds: that the real kernel refuses and grants the seal is
// part of what is tested.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import koffi from 'koffi';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { filledMemfd } from '../../src/linux/memfd-buffer.ts';
import { LinuxMemory, type MemoryParts } from '../../src/linux/memory.ts';
import { close } from '../../src/posix/libc.ts';
import { Mapping } from '../../src/posix/mapping.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { domId } from '../../src/xen/ids.ts';
import { FakeKernel } from './fake-dma-bufs.ts';

const domid = domId(4);

function rig(parts: Partial<MemoryParts> = {}) {
  const kernel = new FakeKernel();
  const { open, udmabufLimit } = kernel;
  const availablePages = () => 1e6;
  const memory = new LinuxMemory({ open, heaps: [], udmabufLimit, availablePages, ...parts });
  return { kernel, memory };
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

test('a buffer is zeroed, its dma-bufs are in parts that udmabuf allows, and one view shows all', async () => {
  const { memory } = rig();
  const small = await memory.allocate({ pages: 64, contiguity: 'none' });
  assert.equal(typeof small.fd, 'number');
  const large = await memory.allocate({ pages: 130, contiguity: 'none' });
  assert.equal(large.fd, undefined);
  assert.equal(large.bytes.length, 130 * PAGE_SIZE);
  assert(large.bytes.every((byte) => byte === 0));
  large.bytes[129 * PAGE_SIZE] = 1;
  using part = new Mapping(64, { fd: small.fd!, offset: 0, writable: false });
  small.bytes[63 * PAGE_SIZE] = 7;
  assert.equal(part.bytes[63 * PAGE_SIZE], 7);
});

const mincore = koffi.load('libc.so.6').func('int mincore(uintptr_t, size_t, void *)');

/** How many pages of a file hold what they are to hold: those that fallocate made and nobody cleared do not. */
function populated(fd: number, pages: number): number {
  using mapping = new Mapping(pages, { fd, offset: 0, writable: false });
  const resident = new Uint8Array(pages);
  assert.equal(mincore(mapping.address, pages * PAGE_SIZE, resident), 0);
  return resident.filter((flags) => (flags & 1) !== 0).length;
}

test('pages are cleared before a driver has them: fallocate leaves in them what was there before', async () => {
  const { memory } = rig();
  const pool = await memory.createPool({ domid, pages: 50 });
  const buffer = await pool.allocate(48);
  assert.equal(populated(buffer.fd!, 48), 48);
  await buffer.free();
  const uncleared = await filledMemfd('uncleared', 8);
  assert.equal(populated(uncleared, 8), 0, 'what would have been lent');
  close(uncleared, { context: 'a test' });
});

test('freed memory is proven free by the seal; a stale view reads zeros', async () => {
  const { memory } = rig();
  await (await memory.allocate({ pages: 1, contiguity: 'none' })).free();
  const before = openFiles();
  const buffer = await memory.allocate({ pages: 70, contiguity: 'none' });
  const stale = buffer.bytes;
  stale[5] = 5;
  assert.deepEqual(await buffer.free(), { heldPages: 0, evidence: 'memfd seal' });
  assert.deepEqual(await buffer.free(), { heldPages: 0, evidence: 'memfd seal' });
  assert.equal(stale[5], 0);
  assert.equal(buffer.fd, undefined);
  assert.throws(() => buffer.bytes, /freed buffer/);
  assert.equal(openFiles(), before);
});

test('while anybody has a page all of them are held, and given back once nobody does', async () => {
  const { memory } = rig();
  const pool = await memory.createPool({ domid, pages: 10 });
  const buffer = await pool.allocate(6);
  const user = new Mapping(1, { fd: buffer.fd!, offset: 0, writable: true });
  for (let i = 0; i < 2; i++) {
    assert.deepEqual(await buffer.free(), { heldPages: 6, evidence: 'memfd seal' });
    assert.equal(pool.freePages, 4, 'the pool does not have them back');
  }
  user[Symbol.dispose]();
  const both = await Promise.all([buffer.free(), buffer.free()]);
  assert.deepEqual(both, [both[0], both[0]]);
  assert.equal(both[0].heldPages, 0);
  assert.equal(pool.freePages, 10);
});

test('a pool lends what it has, and no page of it twice', async () => {
  const { memory } = rig();
  const pool = await memory.createPool({ domid, pages: 8 });
  const first = await pool.allocate(5);
  first.bytes.fill(1);
  await assert.rejects(pool.allocate(4), refused('ENOMEM', /3 of 8 pages left/));
  const second = await pool.allocate(3);
  assert(second.bytes.every((byte) => byte === 0));
  await first.free();
  const third = await pool.allocate(5);
  assert(third.bytes.every((byte) => byte === 0));
  await pool[Symbol.asyncDispose]();
  await pool[Symbol.asyncDispose]();
  assert.equal(pool.freePages, 0);
  assert.equal((await third.free()).heldPages, 0, 'what is lent outlives the pool');
});

test('whatever is allocated and freed at once, free and lent pages are the size of the pool', async () => {
  const steps = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(steps, async (sizes) => {
      const { memory } = rig();
      const pool = await memory.createPool({ domid, pages: 20 });
      const results = await Promise.allSettled(sizes.map((pages) => pool.allocate(pages)));
      const buffers = results.flatMap((r) => (r.status === 'fulfilled' ? [r.value] : []));
      const lent = buffers.reduce((sum, { pages }) => sum + pages, 0);
      assert.equal(pool.freePages, 20 - lent);
      await Promise.all(buffers.map((buffer) => buffer.free()));
      assert.equal(pool.freePages, 20);
      await memory[Symbol.asyncDispose]();
    }),
    { numRuns: 30 },
  );
});

test('when a part of a buffer cannot be made, nothing of it stays', async () => {
  const { kernel, memory } = rig();
  const pool = await memory.createPool({ domid, pages: 200 });
  const before = openFiles();
  kernel.udmabufsLeft = 2;
  await assert.rejects(pool.allocate(150), refused('ENOMEM', /memfd/));
  assert.equal(pool.freePages, 200);
  assert.equal(openFiles(), before);
});

test('more than the domain has is refused before the kernel would end processes for it', async () => {
  const { memory } = rig({ availablePages: () => 20_000 });
  await assert.rejects(
    memory.createPool({ domid, pages: 4_000 }),
    refused('ENOMEM', /3616 can be had/),
  );
  await assert.rejects(
    memory.allocate({ pages: 4_000, contiguity: 'none' }),
    refused('ENOMEM', /./),
  );
  await memory.createPool({ domid, pages: 100 });
});

test('without udmabuf the system heap serves, and without that nothing does', async () => {
  const { kernel, memory } = rig({ heaps: ['system'] });
  kernel.absent.add('/dev/udmabuf');
  const buffer = await memory.allocate({ pages: 3, contiguity: 'none' });
  assert.deepEqual(buffer.contiguity, { kind: 'none', proof: 'allocated from system' });
  assert.deepEqual(await buffer.free(), { heldPages: 0, evidence: 'driver' });
  await assert.rejects(memory.createPool({ domid, pages: 3 }), refused('EOPNOTSUPP', /udmabuf/));
  const none = rig();
  none.kernel.absent.add('/dev/udmabuf');
  await assert.rejects(
    none.memory.allocate({ pages: 3, contiguity: 'none' }),
    refused('EOPNOTSUPP', /udmabuf/),
  );
});

test('consecutive pages come from a CMA heap, and are called what they are worth', async () => {
  const heaps = ['system', 'linux,cma'];
  for (const consecutive of ['host', 'device'] as const) {
    const { memory } = rig({ heaps, consecutive });
    const buffer = await memory.allocate({ pages: 9, contiguity: 'device' });
    assert.deepEqual(buffer.contiguity, { kind: consecutive, proof: 'allocated from linux,cma' });
    await buffer.free();
  }
  const host = { pages: 9, contiguity: 'host' } as const;
  await rig({ heaps, consecutive: 'host' }).memory.allocate(host);
  const device = rig({ heaps, consecutive: 'device' }).memory;
  await assert.rejects(device.allocate(host), refused('EOPNOTSUPP', /in the machine/));
  const pv = rig({ heaps, consecutive: undefined }).memory;
  await assert.rejects(pv.allocate(host), refused('EOPNOTSUPP', /PV domain/));
  const without = rig({ heaps: ['system'], consecutive: 'host' }).memory;
  await assert.rejects(without.allocate(host), refused('EOPNOTSUPP', /linux,cma.*cma=SIZE/));
});

test('a bound on addresses is refused in words, one that holds for every machine is not', async () => {
  const { memory } = rig();
  const request = { pages: 1, contiguity: 'none' } as const;
  await assert.rejects(
    memory.allocate({ ...request, addressBits: 32 }),
    refused('EOPNOTSUPP', /not known to user space/),
  );
  await memory.allocate({ ...request, addressBits: 64 });
});

test('the end of the domain gives up buffers and pools', async () => {
  const { memory } = rig();
  const before = openFiles();
  const pool = await memory.createPool({ domid, pages: 10 });
  const buffers = [await pool.allocate(2), await memory.allocate({ pages: 2, contiguity: 'none' })];
  const views = buffers.map(({ bytes }) => bytes);
  for (const view of views) view[0] = 1;
  await memory[Symbol.asyncDispose]();
  assert(views.every((view) => view[0] === 0));
  assert.equal(openFiles(), before);
});

const pipe = koffi.load('libc.so.6').func('int pipe(_Out_ int *)');
const splice = koffi
  .load('libc.so.6')
  .func('intptr_t splice(int, void *, int, void *, size_t, unsigned int)');

/** Uses the first page of a file as a driver does, not by a mapping: a pipe holds it until it is closed. */
function usePage(fd: number): Disposable {
  const ends = new Int32Array(2);
  assert.equal(pipe(ends), 0);
  assert.equal(Number(splice(fd, null, ends[1], null, PAGE_SIZE, 0)), PAGE_SIZE);
  const closeBoth = () => {
    for (const end of ends) close(end, { context: 'a test' });
  };
  return { [Symbol.dispose]: closeBoth };
}

test('a guest that keeps many buffers keeps one thread at a time from the others (law 3)', async () => {
  const { memory } = rig();
  const hoarder = await memory.createPool({ domid, pages: 8 });
  const other = await memory.createPool({ domid: domId(5), pages: 1 });
  const kept = await Promise.all(Array.from({ length: 8 }, () => hoarder.allocate(1)));
  const users = kept.map(({ fd }) => usePage(fd!));
  const ends: string[] = [];
  const hoarded = kept.map(async (buffer) => {
    assert.equal((await buffer.free()).heldPages, 1);
    ends.push('hoarder');
  });
  const freed = other.allocate(1).then(async (buffer) => {
    assert.equal((await buffer.free()).heldPages, 0);
    ends.push('other');
  });
  await Promise.all([...hoarded, freed]);
  assert(ends.indexOf('other') < 3, `the other one came after ${ends.indexOf('other')} tries`);
  for (const user of users) user[Symbol.dispose]();
  for (const buffer of kept) assert.equal((await buffer.free()).heldPages, 0);
});
