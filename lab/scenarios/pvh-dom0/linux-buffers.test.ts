// Buffers on a translated dom0: made, lent to a running guest and proven free by the seal; and a guest's grant
// as a dma-buf, which a PV dom0 does not make. Afterwards the host holds what it held before.
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { runChecks } from '../../checks.ts';
import { Guest } from '../../guest.ts';
import { HostWatch } from '../../host.ts';
import { deployProbe } from '../../payload.ts';

/** Fewer would mean that the program did not come to its end. */
const MIN_CHECKS = 7;

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
  const args = [`${guest.domid}`];
  await runChecks(t, dom0, { program, args, minChecks: MIN_CHECKS });
  await host.settled(counts);
});
