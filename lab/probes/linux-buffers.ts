// Buffers of provider 2 exercised for real, inside dom0: memfds and heaps made dma-bufs, lent to a guest (whose
// domid is the argument) and, in a PV dom0, to dom0 itself, which may map its own grants there. Prints one
// JSON line as linux-provider does: for each check null, or what went wrong, and figures.
import assert from 'node:assert/strict';
import { GNTDEV, type OpenDevice, openXenDevice, UDMABUF } from '../../src/linux/device.ts';
import { type LinuxDomain, openLinuxDomain } from '../../src/linux/domain.ts';
import { Gntdev } from '../../src/linux/gntdev.ts';
import { GrantObserver } from '../../src/linux/grant-observer.ts';
import { guestType } from '../../src/linux/kernel-facts.ts';
import { Lender } from '../../src/linux/lends.ts';
import { LinuxMemory } from '../../src/linux/memory.ts';
import { PAGE_SIZE } from '../../src/posix/mapping.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { GrantMapError } from '../../src/xen/domain.ts';
import { DOM0, domId, gref } from '../../src/xen/ids.ts';
import type { LocalBuffer } from '../../src/xen/memory.ts';

const runtime = systemRuntime();
const guest = domId(Number(process.argv[2]));
const TIMEOUT_MS = 60_000;
/** More than udmabuf gives in one dma-buf (64 MiB), and within dom0's grant table. */
const MANY_PAGES = 17_000;
const POOL_PAGES = 8_192;

const figures: Record<string, number> = {};

async function timed<T>(name: string, work: () => Promise<T>): Promise<T> {
  const startMs = runtime.nowMs();
  const result = await work();
  figures[name] = Math.round((runtime.nowMs() - startMs) * 1000) / 1000;
  return result;
}

function fill(bytes: Uint8Array, seed: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + seed, 2654435761);
}

function scattered(domain: LinuxDomain, pages: number): Promise<LocalBuffer> {
  return domain.memory.allocate({ pages, contiguity: 'none' });
}

async function toTheGuest(domain: LinuxDomain): Promise<void> {
  const buffer = await timed('ms to allocate 1024 pages', () => scattered(domain, 1024));
  assert(buffer.bytes.every((byte) => byte === 0));
  const request = { domid: guest, buffer, writable: true };
  const loan = await timed('ms to lend 1024 pages', () => domain.grants.lend(request));
  assert.equal(new Set(loan.refs).size, 1024);
  const evidence = guestType() === 'PV' ? 'grant table' : 'driver';
  const end = await timed('ms to end a loan of 1024 pages', () => loan.end());
  assert.deepEqual(end, { heldPages: 0, evidence });
  const free = await timed('ms to free 1024 pages', () => buffer.free());
  assert.deepEqual(free, { heldPages: 0, evidence: 'memfd seal' });
}

async function severalParts(domain: LinuxDomain): Promise<void> {
  const buffer = await scattered(domain, MANY_PAGES);
  assert.equal(buffer.fd, undefined);
  const request = { domid: guest, buffer, writable: true };
  const loan = await timed(`ms to lend ${MANY_PAGES} pages`, () => domain.grants.lend(request));
  assert.equal(new Set(loan.refs).size, MANY_PAGES);
  assert.equal((await timed(`ms to end it`, () => loan.end())).heldPages, 0);
  assert.equal((await timed(`ms to free it`, () => buffer.free())).heldPages, 0);
}

/** The pages that are granted are those that we see, whatever the kernel does to map them for devices. */
async function samePages(domain: LinuxDomain): Promise<void> {
  const buffer = await scattered(domain, 64);
  const loan = await domain.grants.lend({ domid: DOM0, buffer, writable: true });
  const refs = loan.refs.toReversed();
  fill(buffer.bytes, 1);
  {
    await using mapped = await domain.foreign.map({ domid: DOM0, refs, writable: true });
    for (let page = 0; page < 64; page++) {
      const ours = buffer.bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
      const theirs = mapped.bytes.subarray((63 - page) * PAGE_SIZE, (64 - page) * PAGE_SIZE);
      assert(Buffer.from(ours).equals(theirs), `page ${page}`);
    }
    mapped.bytes[7] = 99;
    assert.equal(buffer.bytes[63 * PAGE_SIZE + 7], 99);
  }
  assert.equal((await loan.end()).heldPages, 0);
  assert.equal((await buffer.free()).heldPages, 0);
}

async function heldWhileMapped(domain: LinuxDomain): Promise<void> {
  const buffer = await scattered(domain, 32);
  const loan = await domain.grants.lend({ domid: DOM0, buffer, writable: true });
  const some = loan.refs.slice(3, 10);
  const mapped = await domain.foreign.map({ domid: DOM0, refs: some, writable: true });
  assert.deepEqual(await loan.end(), { heldPages: 7, evidence: 'grant table' });
  assert.deepEqual(await buffer.free(), { heldPages: 32, evidence: 'lent' });
  await mapped[Symbol.asyncDispose]();
  assert.deepEqual(await loan.end(), { heldPages: 0, evidence: 'grant table' });
  assert.deepEqual(await buffer.free(), { heldPages: 0, evidence: 'memfd seal' });
}

/** Where nobody can look, the seal knows. */
async function provenBySeal(domain: LinuxDomain): Promise<void> {
  using lender = new Lender({ open: openXenDevice, observer: () => undefined });
  const buffer = await scattered(domain, 16);
  const loan = await lender.lend({ domid: DOM0, buffer, writable: true });
  const { refs } = loan;
  using observer = GrantObserver.open(openXenDevice, guestType());
  const watched = observer.watch(DOM0, refs);
  const mapped = await domain.foreign.map({ domid: DOM0, refs, writable: true });
  assert.equal(watched?.mapped(), 16);
  assert.deepEqual(await loan.end(), { heldPages: 0, evidence: 'driver' });
  assert.equal(watched.left(), 16, 'the kernel said success, and the entries are still there');
  const held = await timed('ms to find pages in use', () => buffer.free());
  assert.deepEqual(held, { heldPages: 16, evidence: 'memfd seal' });
  await mapped[Symbol.asyncDispose]();
  const gone = () => watched.left() === 0;
  await timed('ms until 16 entries were free', () =>
    until(runtime, gone, { what: 'the entries are free', timeoutMs: TIMEOUT_MS, intervalMs: 100 }),
  );
  const free = async () => (await buffer.free()).heldPages === 0;
  await timed('ms until the kernel let go of 16 pages', () =>
    until(runtime, free, { what: 'the pages are free', timeoutMs: TIMEOUT_MS, intervalMs: 100 }),
  );
}

async function pool(domain: LinuxDomain): Promise<void> {
  const request = { domid: guest, pages: POOL_PAGES };
  await using reserve = await timed(`ms to set ${POOL_PAGES} pages aside`, () =>
    domain.memory.createPool(request),
  );
  for (let round = 0; round < 3; round++) {
    const first = await reserve.allocate(6_000);
    assert(first.bytes.every((byte) => byte === 0));
    first.bytes.fill(1);
    assert.equal(reserve.freePages, POOL_PAGES - 6_000);
    await assert.rejects(reserve.allocate(6_000), (error) => {
      return error instanceof SysError && error.errnoName === 'ENOMEM';
    });
    const loan = await domain.grants.lend({ domid: guest, buffer: first, writable: true });
    await loan.end();
    assert.equal((await first.free()).heldPages, 0);
    assert.equal(reserve.freePages, POOL_PAGES);
  }
}

async function tooMuch(domain: LinuxDomain): Promise<void> {
  await assert.rejects(domain.memory.createPool({ domid: guest, pages: 10_000_000 }), (error) => {
    return error instanceof SysError && error.errnoName === 'ENOMEM';
  });
}

/** What a host without udmabuf does. */
async function systemHeap(domain: LinuxDomain): Promise<void> {
  const open: OpenDevice = (device) => {
    return openXenDevice(device.path === UDMABUF.path ? { path: '/dev/absent' } : device);
  };
  await using memory = new LinuxMemory({ open });
  const buffer = await memory.allocate({ pages: 100, contiguity: 'none' });
  assert.match(buffer.contiguity.proof, /system/);
  assert(buffer.bytes.every((byte) => byte === 0));
  fill(buffer.bytes, 5);
  const loan = await domain.grants.lend({ domid: guest, buffer, writable: true });
  assert.equal((await loan.end()).heldPages, 0);
  const stale = buffer.bytes;
  assert.deepEqual(await buffer.free(), { heldPages: 0, evidence: 'driver' });
  assert(stale.every((byte) => byte === 0));
  if (guestType() !== 'PV') return;
  const again = await memory.allocate({ pages: 10, contiguity: 'none' });
  const own = await domain.grants.lend({ domid: DOM0, buffer: again, writable: true });
  fill(again.bytes, 6);
  {
    const { refs } = own;
    await using mapped = await domain.foreign.map({ domid: DOM0, refs, writable: true });
    assert(Buffer.from(again.bytes).equals(mapped.bytes));
  }
  assert.equal((await own.end()).heldPages, 0);
  await again.free();
}

async function contiguous(domain: LinuxDomain): Promise<void> {
  await assert.rejects(domain.memory.allocate({ pages: 4, contiguity: 'host' }), (error) => {
    assert(error instanceof SysError && error.errnoName === 'EOPNOTSUPP', String(error));
    assert.match(error.message, guestType() === 'PV' ? /PV domain/ : /none of the heaps|machine/);
    return true;
  });
  const low = { pages: 4, contiguity: 'none', addressBits: 32 } as const;
  await assert.rejects(domain.memory.allocate(low), /addresses/);
}

async function exportRefused(domain: LinuxDomain): Promise<void> {
  await using shared = await domain.grants.share({ domid: DOM0, pages: 4, writable: true });
  const request = { domid: DOM0, refs: shared.refs, caching: 'cached' } as const;
  for (let i = 0; i < 2; i++) {
    await assert.rejects(domain.foreign.export(request), (error) => {
      assert(error instanceof SysError && error.errnoName === 'EOPNOTSUPP', String(error));
      assert.match(error.message, /PV domain/);
      return true;
    });
  }
}

/** The guest's keyboard page as a dma-buf: nobody imports it, so its end comes with ours. */
async function exportOfGuest(domain: LinuxDomain): Promise<void> {
  const node = `/local/domain/${guest}/device/vkbd/0/page-gref`;
  const refs = [gref(Number(await domain.store.read(node)))];
  const exported = await domain.foreign.export({ domid: guest, refs, caching: 'cached' });
  assert.equal(typeof exported.fd, 'number');
  assert.equal(await exported.released(), false);
  exported.close();
  const released = () => exported.released();
  await timed('ms until a dma-buf of a grant was released', () =>
    until(runtime, released, { what: 'it is released', timeoutMs: TIMEOUT_MS, intervalMs: 10 }),
  );
  const bad = { domid: guest, refs: [...refs, gref(500_000)], caching: 'cached' } as const;
  await assert.rejects(domain.foreign.export(bad), (error) => {
    return error instanceof GrantMapError && error.index === 1;
  });
  const again = await domain.foreign.export({ domid: guest, refs, caching: 'cached' });
  again.close();
}

/** What a mapping beyond the module's limit does, with a limit of 3. */
async function splitMapping(domain: LinuxDomain): Promise<void> {
  await using shared = await domain.grants.share({ domid: DOM0, pages: 10, writable: true });
  fill(shared.bytes, 9);
  using gntdev = new Gntdev(openXenDevice(GNTDEV), 3);
  const { refs } = shared;
  const mapping = await gntdev.map({ domid: DOM0, refs, writable: true });
  assert(Buffer.from(shared.bytes).equals(mapping.bytes));
  const stale = mapping.bytes;
  await mapping[Symbol.asyncDispose]();
  assert(stale.every((byte) => byte === 0));
  const bad = [...refs.slice(0, 7), gref(500), ...refs.slice(8)];
  await assert.rejects(gntdev.map({ domid: DOM0, refs: bad, writable: true }), /number 7 of/);
  await using _again = await gntdev.map({ domid: DOM0, refs, writable: true });
}

async function closedWhileLent(): Promise<void> {
  await using other = await openLinuxDomain({ runtime });
  const domain = await openLinuxDomain({ runtime });
  const buffer = await scattered(domain, 8);
  const { refs } = await domain.grants.lend({ domid: DOM0, buffer, writable: true });
  fill(buffer.bytes, 4);
  const copy = Buffer.from(buffer.bytes);
  await using mapped = await other.foreign.map({ domid: DOM0, refs, writable: true });
  await domain[Symbol.asyncDispose]();
  assert(copy.equals(mapped.bytes), 'the pages outlive the domain that lent them');
}

type Check = (domain: LinuxDomain) => Promise<void>;

const CHECKS: Readonly<Record<string, Check>> = {
  'a buffer is lent to a guest, and the loan ends': toTheGuest,
  'a buffer of several dma-bufs is lent as one': severalParts,
  'a pool lends zeroed pages, and has all of them again': pool,
  'more than there is cannot be set aside': tooMuch,
  'without udmabuf the system heap serves': systemHeap,
  'what is not contiguous is not called so': contiguous,
};

/** What needs a domain that maps its own grants. */
const PV_CHECKS: Readonly<Record<string, Check>> = {
  'what is lent are the very pages of the buffer': samePages,
  'pages that are mapped are held, and counted in the grant table': heldWhileMapped,
  'without a look at the grant table the seal proves who has pages': provenBySeal,
  'exporting grants is refused with the reason': exportRefused,
  'a mapping beyond the limit is one view': splitMapping,
  'what is lent outlives the domain that lent it while it is mapped': closedWhileLent,
};

/** What only a translated domain can. */
const TRANSLATED_CHECKS: Readonly<Record<string, Check>> = {
  'a grant of a guest becomes a dma-buf, and is seen to be released': exportOfGuest,
};

async function runChecks(): Promise<void> {
  const results: Record<string, string | null> = {};
  const domain = await openLinuxDomain({ runtime });
  const checks = { ...CHECKS, ...(guestType() === 'PV' ? PV_CHECKS : TRANSLATED_CHECKS) };
  for (const [name, check] of Object.entries(checks)) {
    try {
      await timed(`ms in all: ${name}`, () => check(domain));
      results[name] = null;
    } catch (error) {
      results[name] = error instanceof Error ? (error.stack ?? error.message) : String(error);
    }
  }
  await domain[Symbol.asyncDispose]();
  process.stdout.write(`${JSON.stringify({ results, figures })}\n`);
}

await runChecks();
