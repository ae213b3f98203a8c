// Provider 2 exercised for real, inside dom0: event channels, grants and xenstore of dom0 with itself (a PV
// dom0 may map its own grants). Prints one JSON line: for each check null, or what went wrong, and
// figures; with the argument `hold` it takes one of everything and stays. The scenario linux-provider
// runs it, and looks from outside at what is left over.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { openXenDevice, XENBUS } from '../../src/linux/device.ts';
import { type LinuxDomain, openLinuxDomain } from '../../src/linux/domain.ts';
import { probeHost, requireServable } from '../../src/linux/host.ts';
import { XenbusDeviceChannel } from '../../src/linux/xenstore.ts';
import { FdWatcher } from '../../src/posix/fd-watcher.ts';
import { PAGE_SIZE } from '../../src/posix/mapping.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { systemRuntime, until, withTimeout } from '../../src/runtime/runtime.ts';
import { GrantMapError } from '../../src/xen/domain.ts';
import { DOM0, domId, type Gref, gref, port } from '../../src/xen/ids.ts';
import { XenstoreClient } from '../../src/xen/xenstore-client.ts';

const runtime = systemRuntime();
const TIMEOUT_MS = 60_000;
const PINGS = 2_000;
/** Of pages for all programs of the host together, while the checks run. */
const GNTALLOC_LIMIT = 1_024;
const GNTALLOC_LIMIT_FILE = '/sys/module/xen_gntalloc/parameters/limit';
/** Near that limit. */
const MANY_PAGES = 1_000;
/** A reference that dom0 has not granted, in a table of at least one frame. */
const UNGRANTED = gref(500);
const NODE = '/local/domain/0/xen-zcopy-scenario';

const figures: Record<string, number> = {};

function wait(what: string, condition: () => boolean): Promise<void> {
  return until(runtime, condition, { what, timeoutMs: TIMEOUT_MS, intervalMs: 1 });
}

/** Milliseconds that `work` takes, noted under `name`. */
async function timed<T>(name: string, work: () => Promise<T>): Promise<T> {
  const startMs = runtime.nowMs();
  const result = await work();
  figures[name] = Math.round((runtime.nowMs() - startMs) * 1000) / 1000;
  return result;
}

/** How many stretches of this process's memory come from gntdev. */
function grantMappings(): number {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return maps.filter((line) => line.includes('/dev/xen/gntdev')).length;
}

function fill(bytes: Uint8Array, seed: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + seed, 2654435761);
}

async function hostProbe(): Promise<void> {
  const report = await probeHost(process.env);
  requireServable(report);
  // A PV dom0 makes no dma-bufs of grants, and this one has no memory set aside for contiguous buffers.
  const { 'export-refs': exporting, 'contiguous-memory': contiguous, ...others } = report.paths;
  for (const [name, path] of Object.entries(others)) {
    assert(path.available || name === 'kms', `${name}: ${path.reason}`);
  }
  assert.match(exporting.reason, /PV/);
  assert.deepEqual([exporting.available, contiguous.available], [false, false]);
}

async function identity(domain: LinuxDomain): Promise<void> {
  assert.equal(domain.domid, DOM0);
  assert.equal(domain.provider, 'linux');
}

async function pingPong(domain: LinuxDomain): Promise<void> {
  await using other = await openLinuxDomain({ runtime });
  let pings = 0;
  let pongs = 0;
  let finish = () => undefined as unknown;
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  await using offered = await domain.events.allocUnbound({
    remote: DOM0,
    handler: () => {
      pongs += 1;
      if (pongs < PINGS) offered.notify();
      else finish();
    },
  });
  await using bound = await other.events.bindInterdomain({
    remote: DOM0,
    remotePort: offered.port,
    handler: () => {
      pings += 1;
      bound.notify();
    },
  });
  await timed(`ms for ${PINGS} round trips over event channels`, async () => {
    offered.notify();
    const onTimeout = () => new Error(`${pongs} pongs of ${PINGS}`);
    await withTimeout(runtime, finished, { timeoutMs: TIMEOUT_MS, onTimeout });
  });
  // Binding makes the new end pending once, so there is one round more at one of the ends.
  assert(pings >= PINGS && pings <= PINGS + 1, `${pings} pings for ${PINGS} pongs`);
  await timed(`ms for ${PINGS} notify calls`, async () => {
    for (let i = 0; i < PINGS; i++) bound.notify();
  });
}

async function masking(domain: LinuxDomain): Promise<void> {
  let calls = 0;
  let release = () => undefined as unknown;
  await using offered = await domain.events.allocUnbound({
    remote: DOM0,
    handler: () => {
      calls += 1;
      return new Promise<void>((resolve) => {
        release = () => resolve();
      });
    },
  });
  await using bound = await domain.events.bindInterdomain({
    remote: DOM0,
    remotePort: offered.port,
    handler: () => undefined,
  });
  bound.notify();
  await wait('the first call', () => calls === 1);
  for (let i = 0; i < 100; i++) bound.notify();
  await domain.store.read('domid');
  assert.equal(calls, 1, 'masked while the promise is pending');
  release();
  await wait('one call for all that was sent meanwhile', () => calls === 2);
  await domain.store.read('domid');
  assert.equal(calls, 2);
  release();
}

async function closedEnds(domain: LinuxDomain): Promise<void> {
  const calls = { offered: 0, bound: 0 };
  const offered = await domain.events.allocUnbound({
    remote: DOM0,
    handler: () => {
      calls.offered += 1;
    },
  });
  offered.notify();
  const remotePort = offered.port;
  const handler = () => {
    calls.bound += 1;
  };
  const bound = await domain.events.bindInterdomain({ remote: DOM0, remotePort, handler });
  // Xen makes a fresh interdomain port pending, in case something was sent before it was bound.
  await wait('the call that binding gives', () => calls.bound === 1);
  await offered[Symbol.asyncDispose]();
  bound.notify();
  offered.notify();
  await domain.store.read('domid');
  assert.deepEqual(calls, { offered: 0, bound: 1 }, 'nobody is there to be called');
  await bound[Symbol.asyncDispose]();
  const nobody = { remote: DOM0, remotePort: port(1000), handler };
  await assert.rejects(domain.events.bindInterdomain(nobody), (error) => {
    return error instanceof SysError && error.errnoName === 'EINVAL';
  });
}

async function sharedMemory(domain: LinuxDomain): Promise<void> {
  await using shared = await domain.grants.share({ domid: DOM0, pages: 64, writable: true });
  assert(shared.bytes.every((byte) => byte === 0));
  fill(shared.bytes, 1);
  const reversed = shared.refs.toReversed();
  await using mapped = await domain.foreign.map({ domid: DOM0, refs: reversed, writable: true });
  for (let page = 0; page < 64; page++) {
    const ours = shared.bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    const theirs = mapped.bytes.subarray((63 - page) * PAGE_SIZE, (64 - page) * PAGE_SIZE);
    assert(Buffer.from(ours).equals(theirs), `page ${page}`);
  }
  mapped.bytes[5] = 123;
  assert.equal(shared.bytes[63 * PAGE_SIZE + 5], 123);
}

async function readers(domain: LinuxDomain): Promise<void> {
  await using shared = await domain.grants.share({ domid: DOM0, pages: 3, writable: false });
  fill(shared.bytes, 2);
  const { refs } = shared;
  await using mapped = await domain.foreign.map({ domid: DOM0, refs, writable: false });
  assert(Buffer.from(shared.bytes).equals(mapped.bytes));
  await assert.rejects(domain.foreign.map({ domid: DOM0, refs, writable: true }), (error) => {
    assert(error instanceof GrantMapError, String(error));
    assert.deepEqual([error.index, error.status], [0, 'EINVAL']);
    return true;
  });
  await using alsoReaders = await domain.grants.share({ domid: DOM0, pages: 1, writable: true });
  const one = { domid: DOM0, refs: alsoReaders.refs, writable: false };
  await using _reading = await domain.foreign.map(one);
}

async function badGrants(domain: LinuxDomain): Promise<void> {
  await using shared = await domain.grants.share({ domid: DOM0, pages: 40, writable: true });
  for (const index of [0, 1, 17, 39]) {
    const refs: Gref[] = [...shared.refs];
    refs[index] = UNGRANTED;
    refs[39] = UNGRANTED;
    await assert.rejects(domain.foreign.map({ domid: DOM0, refs, writable: true }), (error) => {
      assert(error instanceof GrantMapError, String(error));
      assert.deepEqual([error.index, error.ref], [index, UNGRANTED]);
      assert.match(error.status, /^GNTST_/);
      return true;
    });
  }
  assert.equal(grantMappings(), 0);
  const { refs } = shared;
  await using _all = await domain.foreign.map({ domid: DOM0, refs, writable: true });
}

/** What is unmapped is free at once: else the second round would not fit into gntalloc's limit. */
async function releaseIsAFact(domain: LinuxDomain): Promise<void> {
  for (let round = 0; round < 3; round++) {
    const request = { domid: DOM0, pages: MANY_PAGES, writable: true };
    const shared = await timed(`ms to share ${MANY_PAGES} pages`, () =>
      domain.grants.share(request),
    );
    const { refs } = shared;
    const mapped = await timed(`ms to map ${MANY_PAGES} grants`, () =>
      domain.foreign.map({ domid: DOM0, refs, writable: true }),
    );
    fill(shared.bytes, round);
    const copy = Buffer.from(shared.bytes);
    assert(copy.equals(mapped.bytes));
    const stale = mapped.bytes;
    await timed(`ms to unmap ${MANY_PAGES} grants`, () => mapped[Symbol.asyncDispose]());
    assert(stale.every((byte) => byte === 0));
    stale.fill(1);
    assert(copy.equals(shared.bytes), 'what a stale view writes reaches nobody');
    await shared[Symbol.asyncDispose]();
    assert.equal(grantMappings(), 0);
  }
}

async function tooMuch(domain: LinuxDomain): Promise<void> {
  const request = { domid: DOM0, pages: 5_000, writable: true };
  await assert.rejects(domain.grants.share(request), (error) => {
    return error instanceof SysError && error.errnoName === 'ENOSPC';
  });
}

/** The pages stay with the kernel while they are mapped, readable by who maps them. */
async function endedWhileMapped(domain: LinuxDomain): Promise<void> {
  const shared = await domain.grants.share({ domid: DOM0, pages: 8, writable: true });
  fill(shared.bytes, 3);
  const copy = Buffer.from(shared.bytes);
  const { refs } = shared;
  const mapped = await domain.foreign.map({ domid: DOM0, refs, writable: true });
  await shared[Symbol.asyncDispose]();
  assert(copy.equals(mapped.bytes));
  await mapped[Symbol.asyncDispose]();
}

/** A domain that holds one of everything. @returns a view of memory that it maps */
async function holdEverything(domain: LinuxDomain): Promise<Uint8Array> {
  const shared = await domain.grants.share({ domid: DOM0, pages: 8, writable: true });
  fill(shared.bytes, 4);
  const { refs } = shared;
  const mapped = await domain.foreign.map({ domid: DOM0, refs, writable: true });
  const handler = () => undefined;
  const { port: remotePort } = await domain.events.allocUnbound({ remote: DOM0, handler });
  await domain.events.bindInterdomain({ remote: DOM0, remotePort, handler });
  await domain.store.watch(NODE, () => undefined);
  return mapped.bytes;
}

async function closingTheDomain(): Promise<void> {
  const domain = await openLinuxDomain({ runtime });
  const bytes = await holdEverything(domain);
  assert(bytes.some((byte) => byte !== 0));
  await domain[Symbol.asyncDispose]();
  assert(bytes.every((byte) => byte === 0));
  assert.equal(grantMappings(), 0);
}

async function exerciseStore(store: XenstoreClient): Promise<void> {
  const changes: string[] = [];
  const watch = await store.watch(NODE, (path) => changes.push(path));
  await store.write(`${NODE}/a`, '1');
  await store.transaction(async (access) => {
    await access.write(`${NODE}/b`, `${await access.read(`${NODE}/a`)}2`);
  });
  await wait('the event', () => changes.includes(`${NODE}/b`));
  assert.deepEqual((await store.directory(NODE))?.sort(), ['a', 'b']);
  const permissions = [
    { domid: DOM0, read: false, write: false },
    { domid: domId(7), read: true, write: false },
  ];
  await store.setPermissions(`${NODE}/b`, permissions);
  assert.deepEqual(await store.getPermissions(`${NODE}/b`), permissions);
  await watch[Symbol.asyncDispose]();
  await store.remove(NODE);
  assert.equal(await store.read(`${NODE}/b`), undefined);
}

async function storeByDevice(): Promise<void> {
  const channel = new XenbusDeviceChannel(openXenDevice(XENBUS));
  await using store = new XenstoreClient({ runtime, channel });
  await exerciseStore(store);
}

const CHECKS: Readonly<Record<string, (domain: LinuxDomain) => Promise<void>>> = {
  'the host gives the paths that such a host has': hostProbe,
  'the domain knows who it is': identity,
  'event channels carry notifications both ways': pingPong,
  'a port stays masked until its handler is done': masking,
  'a closed end is quiet, a port that nobody offers is refused': closedEnds,
  'shared and mapped pages are the same memory, in the order of the refs': sharedMemory,
  'readers map for reading, and writing a read-only grant is refused': readers,
  'the first bad ref of a request is found, with its status': badGrants,
  'what is unmapped is released when the promise resolves': releaseIsAFact,
  'sharing more than there is fails with ENOSPC': tooMuch,
  'pages that are still mapped outlive the end of access': endedWhileMapped,
  'closing the domain closes everything': closingTheDomain,
  'xenstore by its socket': ({ store }) => exerciseStore(store),
  'xenstore by the device': storeByDevice,
};

/** A limit of gntalloc that the checks know. @returns what puts the old one back */
function limitGntalloc(): () => void {
  const before = readFileSync(GNTALLOC_LIMIT_FILE, 'utf8');
  writeFileSync(GNTALLOC_LIMIT_FILE, `${GNTALLOC_LIMIT}`);
  return () => writeFileSync(GNTALLOC_LIMIT_FILE, before);
}

async function runChecks(): Promise<void> {
  const results: Record<string, string | null> = {};
  const unlimitGntalloc = limitGntalloc();
  const domain = await openLinuxDomain({ runtime });
  for (const [name, check] of Object.entries(CHECKS)) {
    try {
      await timed(`ms in all: ${name}`, () => check(domain));
      results[name] = null;
    } catch (error) {
      results[name] = error instanceof Error ? (error.stack ?? error.message) : String(error);
    }
  }
  await domain[Symbol.asyncDispose]();
  unlimitGntalloc();
  await wait('the watchers are closed', () => FdWatcher.handles === 0);
  // Nothing keeps the process any more: that it ends by itself is one of the scenario's checks.
  process.stdout.write(`${JSON.stringify({ results, figures })}\n`);
}

/** Holds one of everything until somebody ends the process. */
async function hold(): Promise<void> {
  const domain = await openLinuxDomain({ runtime });
  const bytes = await holdEverything(domain);
  process.stdout.write(`holding ${bytes.length} bytes\n`);
}

await (process.argv[2] === 'hold' ? hold() : runChecks());
