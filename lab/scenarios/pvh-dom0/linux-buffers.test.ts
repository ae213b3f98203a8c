// Buffers on a translated dom0: made, lent to a running guest and proven free by the seal; and a guest's grant
// as a dma-buf, which a PV dom0 does not make. Afterwards the host holds what it held before.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { Guest } from '../../guest.ts';
import { HostWatch } from '../../host.ts';
import { deployProbe } from '../../payload.ts';

const RUN_TIMEOUT_MS = 300_000;
/** Fewer would mean that the program did not come to its end. */
const MIN_CHECKS = 7;

interface Report {
  /** Null, or what went wrong. */
  readonly results: Readonly<Record<string, string | null>>;
  readonly figures: Readonly<Record<string, number>>;
}

const machine = await attach(import.meta);
const { dom0 } = machine;
const host = new HostWatch(dom0);
let program: string;
let guest: Guest;

before(async () => {
  await machine.reset();
  program = await deployProbe(dom0, 'linux-buffers');
  // A small one: what a translated dom0 maps of a guest to build it, it unmaps page by page.
  guest = await Guest.create(dom0, { name: 'borrower', memoryMib: 128, keyboard: {}, modules: [] });
  await guest.published('device/vkbd/0/event-channel');
});
after(async () => {
  await guest.destroy();
  dom0.close();
});

test('buffers are made, lent, exported and given back, and leave nothing behind', async (t) => {
  const counts = await host.counts();
  const output = await dom0.output(['node', program, `${guest.domid}`], RUN_TIMEOUT_MS);
  const report = JSON.parse(output) as Report;
  const results = Object.entries(report.results);
  assert(results.length >= MIN_CHECKS, `only ${results.length} checks ran`);
  for (const [name, failure] of results) {
    await t.test(name, () => assert.equal(failure, null, failure ?? ''));
  }
  for (const [name, figure] of Object.entries(report.figures)) t.diagnostic(`${name}: ${figure}`);
  await host.settled(counts);
});
