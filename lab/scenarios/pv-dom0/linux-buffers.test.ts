// Buffers on the real thing: made, lent to a running guest, observed in the grant table and given back, with
// the kernel's real udmabuf, dma-heap, gntdev and privcmd; afterwards the host holds what it held before.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { runChecks } from '../../checks.ts';
import { Guest } from '../../guest.ts';
import { HostWatch } from '../../host.ts';
import { deployProbe } from '../../payload.ts';

/** Fewer would mean that the program did not come to its end. */
const MIN_CHECKS = 12;

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
  const args = [`${guest.domid}`];
  await runChecks(t, dom0, { program, args, minChecks: MIN_CHECKS });
  await host.settled(counts);
});

test('the kernel and Xen had nothing to complain about', async () => {
  assert.deepEqual(await host.complaints(), []);
});
