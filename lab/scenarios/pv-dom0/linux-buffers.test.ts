// Buffers on the real thing: made, lent to a running guest, observed in the grant table and given back, with
// the kernel's real udmabuf, dma-heap, gntdev and privcmd; afterwards the host holds what it held before.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { Guest } from '../../guest.ts';
import { HostWatch } from '../../host.ts';
import { deployProbe } from '../../payload.ts';

const RUN_TIMEOUT_MS = 300_000;
/** Fewer would mean that the program did not come to its end. */
const MIN_CHECKS = 12;

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
  guest = await Guest.create(dom0, { name: 'borrower', keyboard: {}, modules: [] });
  await guest.published('device/vkbd/0/event-channel');
  await host.complaints();
});
after(async () => {
  await guest.destroy();
  dom0.close();
});

test('buffers are made, lent, observed and given back, and leave nothing behind', async (t) => {
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

test('the kernel and Xen had nothing to complain about', async () => {
  assert.deepEqual(await host.complaints(), []);
});
