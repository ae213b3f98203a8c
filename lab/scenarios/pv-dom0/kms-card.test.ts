// The DRM floor on a real card: vkms in dom0, which composes what it scans out.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { deployProbe } from '../../payload.ts';

const RUN_TIMEOUT_MS = 300_000;
const MIN_CHECKS = 7;

interface Report {
  /** Null, or what went wrong. */
  readonly results: Readonly<Record<string, string | null>>;
  readonly figures: Readonly<Record<string, number>>;
}

const machine = await attach(import.meta);
const { dom0 } = machine;

before(async () => {
  await machine.reset();
  await dom0.output(['modprobe', 'vkms']);
});
after(() => dom0.close());

test('modes, flips, events and buffers of a real card', async (t) => {
  const program = await deployProbe(dom0, 'kms');
  const report = JSON.parse(await dom0.output(['node', program], RUN_TIMEOUT_MS)) as Report;
  const results = Object.entries(report.results);
  assert(results.length >= MIN_CHECKS, `only ${results.length} checks ran`);
  for (const [name, failure] of results) {
    await t.test(name, () => assert.equal(failure, null, failure ?? ''));
  }
  for (const [name, figure] of Object.entries(report.figures)) t.diagnostic(`${name}: ${figure}`);
});
