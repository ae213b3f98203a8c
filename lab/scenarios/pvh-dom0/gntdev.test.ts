// What dom0's gntdev can do by itself with a guest's pages, in a PVH dom0: it maps them, and makes dma-bufs of
// them, which Debian's own gntdev does not.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { type GntdevCost, type GrantedPages, gntdevBare, grantPages } from '../../gntdev-bare.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';

const PAGES = 256;
/** 0 + 1 + ... + 255: every page is full of its index. */
const SUM = (PAGES * (PAGES - 1)) / 2;

const machine = await attach(import.meta);
const { dom0 } = machine;
const host = new HostWatch(dom0);
let guest: Guest;
let granted: GrantedPages;
let counts: HostCounts;

before(async () => {
  await machine.reset();
  guest = await Guest.create(dom0, { name: 'granter', type: 'pvh', modules: [] });
  await guest.booted();
  granted = await grantPages(guest, PAGES);
  counts = await host.counts();
});
after(() => dom0.close());

test('a guest grants pages, and dom0 maps them and gives them back', async (t) => {
  const job = { domid: guest.domid, refs: granted.refs, rounds: 10 };
  const cost = (await gntdevBare(dom0, { what: 'map', ...job })) as GntdevCost;
  assert.deepEqual([cost.refs, cost.rounds, cost.sum], [PAGES, 10, SUM], JSON.stringify(cost));
  t.diagnostic(JSON.stringify(cost));
  await host.settled(counts);
});

test('dom0 makes dma-bufs of the pages, and they are released when they are closed', async (t) => {
  const job = { domid: guest.domid, refs: granted.refs, rounds: 10 };
  const cost = (await gntdevBare(dom0, { what: 'export', ...job })) as GntdevCost;
  assert.deepEqual([cost.refs, cost.rounds], [PAGES, 10], JSON.stringify(cost));
  t.diagnostic(JSON.stringify(cost));
  await host.settled(counts);
});

test('a ref that the guest never granted is refused', async () => {
  const job = { domid: guest.domid, refs: [2_000_000], rounds: 1 };
  assert.equal(await gntdevBare(dom0, { what: 'map', ...job }), 'mmap: EINVAL');
  await granted.program.stop();
  await guest.destroy();
});
