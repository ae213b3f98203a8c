// What a guest makes us hold while buffers are shared with it: every page charged until it is back, and
// bounded also in quarantine.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolViolation } from '../../src/runtime/errors.ts';
import { DOM0, type Gref } from '../../src/xen/ids.ts';
import { accountedDomain } from '../../src/zcopy/accounted-domain.ts';
import { type Budget, DEFAULT_BUDGET, type HeldKind } from '../../src/zcopy/budget.ts';
import { type Account, Ledger } from '../../src/zcopy/ledger.ts';
import type { SharedBuffer } from '../../src/zcopy/shared-buffer.ts';
import { Zcopy } from '../../src/zcopy/zcopy.ts';
import { listed, type SharingWorld, sharing, TestDevice } from './world.ts';

const PAGES = 3;

function setUp({ runtime, dom0, guest }: SharingWorld, limits: Partial<Budget> = {}) {
  const alice = guest('alice');
  const { domid } = alice;
  const ledger = new Ledger();
  const options = { domid, name: 'alice', budget: { ...DEFAULT_BUDGET, ...limits } };
  const account = ledger.open(options);
  const domain = accountedDomain(dom0, account);
  return { alice, domid, ledger, options, account, domain, zcopy: new Zcopy({ runtime, domain }) };
}

const over = (kind: string) => (error: unknown) =>
  error instanceof ProtocolViolation && error.reason === `over-budget-${kind}`;

/** What is held of some kinds, in their order. */
const held = (account: Account, ...kinds: HeldKind[]) => kinds.map((kind) => account.held[kind]);

test('what is mapped and exported is charged until it is given back, and not at all when it is refused', () =>
  sharing(async (world) => {
    const { alice, domid, account, zcopy } = setUp(world, { refs: 3 * PAGES, mappings: 3 });
    const { run, mapped } = world;
    const { refs } = await alice.grants.share({ domid: DOM0, pages: PAGES, writable: true });
    const first = await run(zcopy.fromRefs({ domid, refs, dmaBuf: 'required' }));
    assert.deepEqual(held(account, 'pages', 'refs', 'mappings'), [PAGES, 2 * PAGES, 2]);
    const refused = zcopy.fromRefs({ domid, refs, dmaBuf: 'if-possible' });
    await assert.rejects(run(refused), over('refs'));
    assert.deepEqual(held(account, 'pages', 'refs', 'mappings'), [PAGES, 2 * PAGES, 2]);
    const gpu = new TestDevice().attach(first.memory);
    await run(first.release({ timeoutMs: 100 }));
    assert.deepEqual(held(account, 'pages', 'refs', 'mappings'), [PAGES, 2 * PAGES, 2]);
    gpu[Symbol.dispose]();
    await run(first.release());
    assert(account.empty);
    assert.equal(mapped(), 0);
  }));

test('G4: pages in quarantine are the guest’s own loss: bounded, refusing more buffers, empty when it dies', () =>
  sharing(async (world) => {
    const { run, hypervisor, pause, frames } = world;
    const limits = { quarantinedPages: PAGES, poolPages: 4 * PAGES };
    const { alice, domid, account, domain, zcopy } = setUp(world, limits);
    const pool = await domain.memory.createPool({ domid, pages: 4 * PAGES });
    const lend = async (name: string) => {
      const buffer = await run(zcopy.toRefs({ domid, memory: await pool.allocate(PAGES) }));
      account.track(listed(name, buffer));
      await alice.foreign.map({ domid: DOM0, refs: buffer.refs, writable: true });
      return buffer;
    };
    const [first, second] = [await lend('1'), await lend('2')];
    await run(first.release({ timeoutMs: 10 }));
    assert.equal(account.held.quarantinedPages, PAGES);
    account.charge({ buffers: 1 })[Symbol.dispose]();
    await run(second.release({ timeoutMs: 10 }));
    assert.equal(account.held.quarantinedPages, 2 * PAGES);
    assert.throws(() => account.charge({ buffers: 1 }), over('quarantinedPages'));
    assert.deepEqual(held(account, 'poolPages', 'pages', 'refs'), new Array(3).fill(2 * PAGES));
    await pool.allocate(2 * PAGES).then((memory) => memory.free());
    await assert.rejects(pool.allocate(2 * PAGES + 1), over('poolPages'));
    hypervisor.destroy(domid);
    await pause(1000);
    assert.deepEqual([first.state, second.state], ['released', 'released']);
    assert(account.empty && account.buffers.length === 0);
    assert.equal(pool.freePages, 4 * PAGES);
    await pool[Symbol.asyncDispose]();
    assert.equal(frames(), 0);
  }));

test('a row stays while buffers are in use, and a guest that comes back finds them in its row', () =>
  sharing(async (world) => {
    const { alice, domid, ledger, options, account, zcopy } = setUp(world);
    const { run } = world;
    const { refs } = await alice.grants.share({ domid: DOM0, pages: PAGES, writable: true });
    const buffers: SharedBuffer[] = [];
    const gpus: Disposable[] = [];
    for (const name of ['old', 'new']) {
      const buffer = await run(zcopy.fromRefs({ domid, refs, dmaBuf: 'required' }));
      account.track(listed(name, buffer));
      gpus.push(new TestDevice().attach(buffer.memory));
      await run(buffer.release({ timeoutMs: 10 }));
      buffers.push(buffer);
      ledger.close(account);
      assert.deepEqual([...ledger.accounts], [account], 'lingers');
      if (name === 'new') break;
      const budget = { ...DEFAULT_BUDGET, quarantinedPages: PAGES - 1 };
      assert.equal(ledger.open({ ...options, name: 'alice again', budget }), account);
      assert.deepEqual([account.name, account.held.quarantinedPages], ['alice again', PAGES]);
      assert.throws(() => account.charge({ buffers: 1 }), over('quarantinedPages'));
      assert.throws(() => ledger.open(options), /has a row already/);
    }
    gpus[0]![Symbol.dispose]();
    await run(buffers[0]!.released);
    await world.pause(10);
    assert.deepEqual(
      [...ledger.accounts].flatMap((row) => row.buffers.map(({ name }) => name)),
      ['new'],
    );
    gpus[1]![Symbol.dispose]();
    await run(buffers[1]!.released);
    await world.pause(10);
    assert.deepEqual([...ledger.accounts], []);
    const { pages, quarantinedPages } = ledger.heldBy(domid);
    assert.deepEqual([pages, quarantinedPages], [0, 0]);
  }));

test('a row that was opened again stays when the old buffers are gone', () =>
  sharing(async (world) => {
    const { alice, domid, ledger, options, account, zcopy } = setUp(world);
    const { run, pause } = world;
    const { refs } = await alice.grants.share({ domid: DOM0, pages: PAGES, writable: true });
    const buffer = await run(zcopy.fromRefs({ domid, refs }));
    account.track(listed('old', buffer));
    ledger.close(account);
    ledger.open(options);
    await run(buffer.release());
    await pause(1000);
    assert.deepEqual([...ledger.accounts], [account]);
    ledger.close(account);
    assert.deepEqual([...ledger.accounts], []);
  }));

test('pages without neighbours take the guest’s own share of the memory map, and no more of it', () =>
  sharing(async (world) => {
    const { alice, domid, account, domain } = setUp(world, { areas: 2 * PAGES });
    const { run, mapped } = world;
    const { refs } = await alice.grants.share({ domid: DOM0, pages: 2 * PAGES, writable: true });
    const apart = [...refs].reverse();
    const map = (some: readonly Gref[]) =>
      run(domain.foreign.map({ domid, refs: some, writable: false }));
    const first = await map(apart.slice(0, PAGES));
    const neighbours = await map(refs);
    assert.deepEqual(held(account, 'areas', 'mappings'), [PAGES + 1, 2]);
    await assert.rejects(map(apart.slice(PAGES)), over('areas'));
    assert.deepEqual(held(account, 'areas', 'mappings', 'pages'), [PAGES + 1, 2, 3 * PAGES]);
    assert.equal(mapped(), 3 * PAGES, 'what is refused is not mapped');
    await run(neighbours[Symbol.asyncDispose]());
    await run((await map(apart.slice(PAGES)))[Symbol.asyncDispose]());
    await run(first[Symbol.asyncDispose]());
    assert(account.empty);
  }));
