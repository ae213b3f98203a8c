// Buffers that the backend allocates (be-alloc): lent from the guest's pool or from the output's own memory,
// drawn into by the guest, read in place, and given back only when the guest has really let go.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { XENDISPL_DBUF_FLG_REQ_ALLOC } from '../../src/abi/displif.ts';
import { XEN_ERRNO } from '../../src/abi/errno.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { ANSWER_TIMEOUT_MS } from '../../src/display/deadline.ts';
import type { OutputBufferRequest } from '../../src/display/output.ts';
import { ARGB8888, RGB565, XRGB8888 } from '../../src/display/pixel-format.ts';
import { SysError } from '../../src/runtime/errors.ts';
import type { ForeignMapping, MapRequest } from '../../src/xen/domain.ts';
import { DOM0, gref } from '../../src/xen/ids.ts';
import type { LocalBuffer, Memory } from '../../src/xen/memory.ts';
import { offeredRefs } from '../../src/xen/page-directory.ts';
import { removeDevice } from '../../src/xen/xenbus/toolstack.ts';
import { TestDevice } from '../zcopy/world.ts';
import { BYTES, HEIGHT, WIDTH } from './bodies.ts';
import { DisplayHost } from './host.ts';
import { RecordingOutput } from './recording-output.ts';
import { type Rig, rig } from './rig.ts';

const PAGES = BYTES / PAGE_SIZE;
const REQ_ALLOC = XENDISPL_DBUF_FLG_REQ_ALLOC;
const ENOMEM = -XEN_ERRNO.XEN_ENOMEM;
const EINVAL = -XEN_ERRNO.XEN_EINVAL;
const ETIMEDOUT = -XEN_ERRNO.XEN_ETIMEDOUT;

function borrowing(options: Parameters<typeof rig>[1] = {}): Promise<Rig> {
  return rig(1, { beAlloc: true, ...options });
}

/** Has buffer `cookie` allocated and maps it as a guest does. */
async function borrow(t: Rig, cookie = 1n, pages = PAGES): Promise<ForeignMapping> {
  const directory = await t.offer(pages);
  const gref_directory = directory.refs[0]!;
  const flags = REQ_ALLOC;
  assert.equal(await t.create({ dbuf_cookie: cookie, gref_directory, flags }), 0);
  const refs = offeredRefs(directory, pages);
  return t.host.run(t.raw.guest.foreign.map({ domid: DOM0, refs, writable: true }));
}

const unmap = (t: Rig, mapping: ForeignMapping) =>
  t.host.run(Promise.resolve(mapping[Symbol.asyncDispose]()));

for (const format of [XRGB8888, ARGB8888, RGB565]) {
  test(`what the guest draws into a borrowed buffer is what the output reads: ${format.name}`, async () => {
    const output = new RecordingOutput();
    const host = await DisplayHost.open({ output: () => output, beAlloc: true });
    const { display, domain } = await host.display('64x48', '32x16');
    const buffer = await host.run(display.createBuffer({ width: 64, height: 48, format }));
    assert(
      buffer.bytes.every((byte) => byte === 0),
      'black at first',
    );
    buffer.bytes.forEach((_, at) => {
      buffer.bytes[at] = at % 251;
    });
    const framebuffer = await host.run(display.attach(buffer));
    await host.run(display.setMode(0, framebuffer));
    const { shown } = output.connectors[0]!;
    assert.deepEqual(Buffer.from(shown!.bytes), Buffer.from(buffer.bytes));
    assert(shown!.memory, 'an output can have the memory itself');
    assert.equal(output.connectors[0]!.bytesCopied, 0);
    const { pages, refs, poolPages } = host.account(domain.domid).held;
    const count = Math.ceil(buffer.bytes.length / PAGE_SIZE);
    assert.equal(poolPages, count);
    assert(pages >= count && refs >= count);
    await host.run(display.setMode(0, undefined));
    await host.run(display.destroyBuffer(buffer));
    assert.equal(host.account(domain.domid).held.poolPages, 0);
    await host.close();
  });
}

test('a guest that keeps the pages is told so, and they are in quarantine until it lets go (G4)', async () => {
  const t = await borrowing();
  const mapping = await borrow(t);
  const startMs = t.host.runtime.nowMs();
  assert.equal(await t.destroy(1n), ETIMEDOUT);
  assert(t.host.runtime.nowMs() - startMs >= ANSWER_TIMEOUT_MS);
  const [buffer] = t.account.buffers;
  assert.equal(buffer!.state, 'quarantined');
  assert.deepEqual(
    buffer!.holders.map(({ who, pages }) => [who, pages]),
    [[`domain ${t.domid}`, PAGES]],
  );
  assert.equal(t.account.held.quarantinedPages, PAGES);
  assert.equal(await t.destroy(1n), -XEN_ERRNO.XEN_EBUSY, 'its name is taken until then');
  mapping.bytes.fill(0xaa);
  await unmap(t, mapping);
  await t.host.until(() => t.account.buffers.length === 0, 'the quarantine empties itself');
  assert.equal(t.account.held.poolPages, 0);
  assert(
    (await borrow(t)).bytes.every((byte) => byte === 0),
    'nobody sees what was drawn before',
  );
  await t.finish();
});

test('pages in quarantine are never lent again, whatever else is borrowed', async () => {
  const t = await borrowing({ budget: { poolPages: 2 * PAGES } });
  const kept = await borrow(t);
  kept.bytes.fill(0x55);
  assert.equal(await t.destroy(1n), ETIMEDOUT);
  const second = await borrow(t, 2n);
  second.bytes.fill(0xaa);
  assert(kept.bytes.every((byte) => byte === 0x55));
  const third = await t.offer(PAGES);
  const request = { dbuf_cookie: 3n, gref_directory: third.refs[0]!, flags: REQ_ALLOC };
  assert.equal(await t.create(request), ENOMEM, 'the pool is what it is');
  assert.equal(t.account.refused['over-budget-poolPages'], 1);
  await unmap(t, kept);
  await t.host.until(() => t.account.held.quarantinedPages === 0, 'the first one is back');
  assert.equal(await t.create(request), 0);
  await unmap(t, second);
  await t.finish();
});

test('a guest that dies with the pages mapped leaves nothing (G1)', async () => {
  const t = await borrowing();
  await borrow(t);
  assert.equal(await t.destroy(1n), ETIMEDOUT);
  await borrow(t, 2n);
  const [guest] = t.host.host.guests;
  guest!.crash();
  await t.host.run(guest!.gone);
  await t.host.close();
});

test('a driver that leaves with the pages mapped, and whose device is taken away: the row stays until they are back', async () => {
  const t = await borrowing();
  const mapping = await borrow(t);
  const { account } = t;
  await t.raw.close();
  await t.host.until(() => account.held.quarantinedPages === PAGES, 'the quarantine');
  assert.equal(account.buffers[0]!.holders[0]!.who, `domain ${t.domid}`);
  const { runtime, host } = t.host;
  const at = { backendDomid: DOM0, domid: t.domid, devid: 0 };
  const device = { ...at, backendType: 'vdispl', frontendType: 'vdispl' };
  await t.host.run(removeDevice(runtime, host.dom0.store, device));
  await t.host.until(() => account.held.ports + account.held.watches === 0, 'the device is gone');
  assert.equal(t.account, account, 'the row is not');
  await unmap(t, mapping);
  await t.host.until(() => account.empty, 'nothing is held');
  await t.host.close();
});

test('directories that cannot be filled give no buffer (R6)', async () => {
  const t = await borrowing();
  const ask = async (gref_directory: number) => t.create({ gref_directory, flags: REQ_ALLOC });
  assert.equal(await ask(await t.directory(() => [])), EINVAL, 'read-only');
  const long = await t.offer(2000);
  assert.equal(await ask(long.refs[0]!), EINVAL, 'goes on behind the last reference');
  assert.equal(await ask(99_999), EINVAL, 'no grant');
  assert.deepEqual(t.account.refused, { 'bad-grant': 2, 'directory-long': 1 });
  assert.equal(t.account.held.buffers, 0);
  assert.equal(t.account.held.poolPages, 0);
  await t.finish();
});

test('a directory chain that is too short, and a next page that the backend leaves alone', async () => {
  const count = 1024;
  const t = await borrowing({ budget: { poolPages: 2 * count } });
  const big = { width: 1024, height: count, bpp: 32, buffer_sz: count * PAGE_SIZE };
  const short = await t.offer(1);
  const gref_directory = short.refs[0]!;
  assert.equal(await t.create({ ...big, gref_directory, flags: REQ_ALLOC }), EINVAL);
  assert.deepEqual(t.account.refused, { 'directory-short': 1 });
  const whole = await t.offer(count);
  assert.equal(await t.create({ ...big, gref_directory: whole.refs[0]!, flags: REQ_ALLOC }), 0);
  assert.equal(new Set(offeredRefs(whole, count)).size, count);
  assert.equal(await t.destroy(1n), 0);
  await t.finish();
});

/** References that a guest tries, more than are in use here. */
const MOST_GUESSES = 64;

/** The guest maps everything of ours that it can find by trying references, right before we look at its directory. */
function guessing({ mock }: TestContext, t: Rig): ForeignMapping[] {
  const mapped: ForeignMapping[] = [];
  const { foreign: ours } = t.host.host.dom0;
  const { foreign: theirs } = t.raw.guest;
  const map = ours.map.bind(ours);
  mock.method(ours, 'map', async (request: MapRequest) => {
    for (let ref = 8; ref < MOST_GUESSES; ref++) {
      const guess = { domid: DOM0, refs: [gref(ref)], writable: true };
      const found = await theirs.map(guess).catch(() => undefined);
      if (found !== undefined) mapped.push(found);
    }
    return map(request);
  });
  return mapped;
}

test('a guest that maps guessed references while its directory is bad holds them in quarantine, by name', async (context) => {
  const t = await borrowing();
  const long = await t.offer(2000);
  const mapped = guessing(context, t);
  const startMs = t.host.runtime.nowMs();
  assert.equal(await t.create({ gref_directory: long.refs[0]!, flags: REQ_ALLOC }), EINVAL);
  assert(t.host.runtime.nowMs() - startMs < ANSWER_TIMEOUT_MS);
  assert.deepEqual(t.account.refused, { 'directory-long': 1 });
  assert.equal(mapped.length, PAGES);
  const [buffer] = t.account.buffers;
  assert.equal(buffer!.state, 'quarantined');
  assert.deepEqual(
    buffer!.holders.map(({ who, pages }) => [who, pages]),
    [[`domain ${t.domid}`, PAGES]],
  );
  assert.equal(t.account.held.quarantinedPages, PAGES);
  context.mock.restoreAll();
  const again = { gref_directory: long.refs[0]!, flags: REQ_ALLOC };
  assert.equal(await t.create(again), -XEN_ERRNO.XEN_EEXIST, 'its name is taken until then');
  for (const mapping of mapped) await unmap(t, mapping);
  await t.host.until(() => t.account.buffers.length === 0, 'the quarantine empties itself');
  const { buffers, poolPages, quarantinedPages } = t.account.held;
  assert.deepEqual([buffers, poolPages, quarantinedPages], [0, 0, 0]);
  await unmap(t, await borrow(t));
  await t.finish();
});

test('pages guessed during a creation that takes too long: the guest is named, then our own creation', async (context) => {
  const t = await borrowing();
  const directory = await t.offer(PAGES);
  const mapped = guessing(context, t);
  const { foreign } = t.host.host.dom0;
  const map = foreign.map.bind(foreign);
  let go: () => void = () => {};
  const slow = new Promise<void>((resolve) => {
    go = resolve;
  });
  const mocked = context.mock.method(foreign, 'map', async (request: MapRequest) => {
    const mapping = await map(request);
    await slow;
    return mapping;
  });
  const gref_directory = directory.refs[0]!;
  assert.equal(await t.create({ gref_directory, flags: REQ_ALLOC }), ETIMEDOUT);
  assert.equal(mapped.length, PAGES);
  const [buffer] = t.account.buffers;
  const who = () => buffer!.holders[0]!.who;
  await t.host.until(() => buffer!.state === 'quarantined', 'the quarantine');
  assert.equal(who(), `domain ${t.domid}`);
  for (const mapping of mapped) await unmap(t, mapping);
  await t.host.until(() => who() !== `domain ${t.domid}`, 'the pages are back');
  await t.host.until(() => who() === 'our own creation of it', 'the memory is back');
  assert.equal(buffer!.state, 'quarantined');
  mocked.mock.restore();
  go();
  await t.host.until(() => t.account.buffers.length === 0, 'the creation is over');
  await t.finish();
});

/** An output whose memory is what the test makes it. */
class LendingOutput extends RecordingOutput {
  readonly contiguity = 'host';
  readonly requests: OutputBufferRequest[] = [];
  memory: Memory | undefined;
  answer: 'contiguous' | 'scattered' | 'none' = 'contiguous';

  async allocate(request: OutputBufferRequest): Promise<LocalBuffer | undefined> {
    this.requests.push(request);
    if (this.answer === 'none') return undefined;
    const contiguity = this.answer === 'contiguous' ? 'host' : 'none';
    return this.memory!.allocate({ pages: request.pages, contiguity });
  }
}

async function lendingRig() {
  const output = new LendingOutput();
  const t = await borrowing({ output: () => output });
  output.memory = t.host.host.dom0.memory;
  return { t, output };
}

test("the output's own memory is lent, with the rows that the guest will use (trap 18)", async () => {
  const { t, output } = await lendingRig();
  const mapping = await borrow(t);
  assert.deepEqual(output.requests, [
    {
      domid: t.domid,
      width: WIDTH,
      height: HEIGHT,
      bitsPerPixel: 32,
      stride: 4 * WIDTH,
      pages: PAGES,
    },
  ]);
  assert.equal(t.account.held.poolPages, 0);
  assert.equal(await t.attach({}), 0);
  assert.equal(await t.config({}), 0);
  const { memory } = output.connectors[0]!.shown!;
  assert.equal(memory?.contiguity.kind, 'host');
  mapping.bytes[0] = 7;
  assert.equal(output.connectors[0]!.shown!.bytes[0], 7);
  await unmap(t, mapping);
  assert.equal(await t.destroy(1n), 0);
  await t.finish();
});

test('an output without such memory: the host has it, where it must be contiguous', async () => {
  const { t, output } = await lendingRig();
  output.answer = 'none';
  const mapping = await borrow(t);
  assert.equal(await t.attach({}), 0);
  assert.equal(await t.config({}), 0);
  assert.equal(output.connectors[0]!.shown!.memory?.contiguity.kind, 'host');
  await unmap(t, mapping);
  await t.finish();
});

test('no pool, no be-alloc: a guest that was not configured for it borrows nothing', async () => {
  const t = await rig();
  const directory = await t.offer(PAGES);
  const request = { gref_directory: directory.refs[0]!, flags: REQ_ALLOC };
  assert.equal(await t.create(request), -XEN_ERRNO.XEN_EOPNOTSUPP);
  assert.deepEqual(t.account.refused, { 'backend-allocation': 1 });
  await t.finish();
});

test('memory that could not be lent and is still in use elsewhere is in the row of the guest', async (context) => {
  const { t, output } = await lendingRig();
  const { dom0 } = t.host.host;
  const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'host' });
  const gpu = new TestDevice().attach(memory);
  output.allocate = async () => memory;
  context.mock.method(dom0.grants, 'lend', async () => {
    throw new SysError({ call: 'a test', errnoName: 'ENOSPC', context: 'no entries' });
  });
  const directory = await t.offer(PAGES);
  const request = { gref_directory: directory.refs[0]!, flags: REQ_ALLOC };
  assert.equal(await t.create(request), -XEN_ERRNO.XEN_ENOSPC);
  const [remains, ...others] = t.account.buffers;
  assert.deepEqual([remains!.state, remains!.pages, others], ['quarantined', PAGES, []]);
  assert.equal(t.account.held.quarantinedPages, PAGES);
  gpu[Symbol.dispose]();
  await t.host.until(() => t.account.buffers.length === 0, 'nothing is left');
  await t.finish();
});
