// Buffers over a domain whose mapping and unmapping the test holds up or lets fail: what a hypervisor in
// the same process is too quick and too good to show.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XENDISPL_OP_DBUF_CREATE } from '../../src/abi/displif.ts';
import { Buffers } from '../../src/display/buffers.ts';
import { ANSWER_TIMEOUT_MS } from '../../src/display/deadline.ts';
import type { CreateRequest } from '../../src/display/requests.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import type { ForeignMapping, MapRequest } from '../../src/xen/domain.ts';
import { domId, gref } from '../../src/xen/ids.ts';
import type { GuestContext } from '../../src/xen/xenbus/driver.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { Account } from '../../src/zcopy/ledger.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';

const DOMID = domId(1);
const DIRECTORY = gref(100);
const REQUEST: CreateRequest = {
  operation: XENDISPL_OP_DBUF_CREATE,
  buffer: { low: 1, high: 0 },
  width: 32,
  height: 32,
  bitsPerPixel: 32,
  bufferBytes: 4096,
  dataOffset: 0,
  backendAllocates: false,
  directory: DIRECTORY,
};

class Foreign {
  mapped = 0;
  beforeMap: () => Promise<void> = async () => {};
  beforeUnmap: () => Promise<void> = async () => {};

  async map({ domid, refs, writable }: MapRequest): Promise<ForeignMapping> {
    assert.equal(writable, false, 'buffers and directories are only read');
    const isDirectory = refs[0] === DIRECTORY;
    if (!isDirectory) await this.beforeMap();
    this.mapped += 1;
    const bytes = new Uint8Array(4096);
    if (isDirectory) new DataView(bytes.buffer).setUint32(4, 8, true);
    const release = async () => {
      if (!isDirectory) await this.beforeUnmap();
      this.mapped -= 1;
    };
    return { domid, pages: refs.length, areas: 1, writable, bytes, [Symbol.asyncDispose]: release };
  }
}

function setUp() {
  const runtime = new VirtualRuntime(1);
  const foreign = new Foreign();
  const account = new Account({ domid: DOMID, name: 'guest', budget: DEFAULT_BUDGET });
  const guest = {
    domid: DOMID,
    domain: { foreign },
    log: runtime.log,
    countRefusal: (reason: string) => account.countRefusal(reason),
    charge: (amounts: Parameters<Account['charge']>[0]) => account.charge(amounts),
    track: (buffer: Parameters<Account['track']>[0]) => account.track(buffer),
    spend: () => {},
  } as unknown as GuestContext;
  const buffers = new Buffers({
    runtime,
    guest,
    confined: (work) => work,
    output: {},
    lends: false,
  });
  /** The value of a promise, running virtual time until it settles. */
  const run = <T>(promise: Promise<T>) => runUntilSettled(runtime, promise);
  return { runtime, foreign, account, buffers, run };
}

/** A gate that stays shut until the test opens it. */
function gate() {
  let open: () => void = () => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, passed };
}

const isTimeout = (error: unknown) => error instanceof SysError && error.errnoName === 'ETIMEDOUT';

test('releasing succeeds only when the pages are unmapped (trap 9)', async () => {
  const { foreign, account, buffers, run } = setUp();
  await run(buffers.create(REQUEST));
  const { open, passed } = gate();
  foreign.beforeUnmap = () => passed;
  let released = false;
  const releasing = buffers.release(buffers.live(REQUEST.buffer)).then(() => {
    released = true;
  });
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  assert.equal(released, false);
  assert.equal(account.held.buffers, 1);
  open();
  await run(releasing);
  assert.equal(foreign.mapped, 0);
  assert(account.empty);
});

test('a mapping that comes too late is undone, and the name is taken until then (trap 4)', async () => {
  const { runtime, foreign, account, buffers, run } = setUp();
  const { open, passed } = gate();
  foreign.beforeMap = () => passed;
  await assert.rejects(run(buffers.create(REQUEST)), isTimeout);
  assert.equal(runtime.nowMs(), ANSWER_TIMEOUT_MS);
  assert.equal(account.held.quarantinedPages, 1);
  await assert.rejects(run(buffers.create(REQUEST)), /dbuf-cookie-in-use/);
  assert.throws(() => buffers.live(REQUEST.buffer), /dbuf-busy/);
  open();
  await runtime.runUntil(() => account.empty, { what: 'the late mapping is undone' });
  assert.equal(foreign.mapped, 0);
  foreign.beforeMap = async () => {};
  await run(buffers.create(REQUEST));
  await run(buffers.close());
  assert(account.empty);
});

test('a mapping that fails late leaves nothing either', async () => {
  const { runtime, foreign, account, buffers, run } = setUp();
  const { open, passed } = gate();
  foreign.beforeMap = async () => {
    await passed;
    throw new SysError({ call: 'ioctl', errnoName: 'ENOMEM', context: 'a test' });
  };
  await assert.rejects(run(buffers.create(REQUEST)), isTimeout);
  open();
  await runtime.runUntil(() => account.empty, { what: 'the failure is noticed' });
  await run(buffers.close());
});

test('an unmapping that fails is quarantined, and tried again until it succeeds', async () => {
  const { runtime, foreign, account, buffers, run } = setUp();
  await run(buffers.create(REQUEST));
  foreign.beforeUnmap = async () => {
    throw new SysError({ call: 'munmap', errnoName: 'ENOMEM', context: 'a test' });
  };
  await assert.rejects(run(buffers.release(buffers.live(REQUEST.buffer))), /munmap/);
  assert.equal(runtime.nowMs(), ANSWER_TIMEOUT_MS);
  assert.equal(account.held.quarantinedPages, 1);
  assert.equal(account.held.buffers, 1);
  assert.match(account.buffers[0]!.holders[0]!.evidence, /munmap/);
  await run(buffers.close());
  assert.equal(account.held.buffers, 1, 'the end of the connection does not wait for it');
  foreign.beforeUnmap = async () => {};
  await runtime.runUntil(() => account.empty, { what: 'the next try' });
  assert.equal(foreign.mapped, 0);
  assert(account.empty);
});

test('a creation that was given up while its directory was read maps nothing of it (simulated world 3770546983)', async () => {
  const { runtime, foreign, account, buffers, run } = setUp();
  const { open, passed } = gate();
  let mappings = 0;
  foreign.beforeMap = async () => {
    mappings += 1;
    await passed;
  };
  await assert.rejects(run(buffers.create(REQUEST)), isTimeout);
  open();
  await runtime.runUntil(() => account.empty, { what: 'the creation is over' });
  assert.equal(mappings, 1, 'the directory, and no page that it named');
  await run(buffers.close());
});
