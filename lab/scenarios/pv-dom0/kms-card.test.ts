// The DRM floor on a real card: vkms in dom0, which composes what it scans out.
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { runChecks } from '../../checks.ts';
import { deployProbe } from '../../payload.ts';

const MIN_CHECKS = 7;

const machine = await attach(import.meta);
const { dom0 } = machine;

before(async () => {
  await machine.reset();
  await dom0.output(['modprobe', 'vkms']);
});
after(() => dom0.close());

test('modes, flips, events and buffers of a real card', async (t) => {
  const program = await deployProbe(dom0, 'kms');
  await runChecks(t, dom0, { program, minChecks: MIN_CHECKS });
});
