// Our own frontend against our own backend on the real Xen, in both directions of allocation: what the demo runs in
// one process runs over gntalloc, gntdev, udmabuf and evtchn as well, and leaves nothing behind.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { runChecks } from '../../checks.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import { deployProbe } from '../../payload.ts';

const machine = await attach(import.meta);
const host = new HostWatch(machine.dom0);
let counts: HostCounts;

before(async () => {
  await machine.reset();
  counts = await host.counts();
  await host.complaints();
});
after(() => machine.dom0.close());

test('both ends are ours, and the picture is the same memory', async (t) => {
  const program = await deployProbe(machine.dom0, 'display-ends');
  await runChecks(t, machine.dom0, { program, minChecks: 2 });
  await host.settled(counts);
});

test('the kernel and Xen had nothing to complain about', async () => {
  assert.deepEqual(await host.complaints(), []);
});
