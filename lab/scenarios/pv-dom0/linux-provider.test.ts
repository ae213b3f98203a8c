// Provider 2 on the real thing: a program in dom0 goes through everything that a domain can do, and what
// Xen, xenstored and the kernel hold afterwards is what they held before, however the program ended.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { runChecks } from '../../checks.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import { deployProbe } from '../../payload.ts';

const HOLD_TIMEOUT_MS = 60_000;
/** Fewer would mean that the program did not come to its end. */
const MIN_CHECKS = 14;

const machine = await attach(import.meta);
const { dom0, runtime } = machine;
const host = new HostWatch(dom0);
let counts: HostCounts;
let program: string;

before(async () => {
  await machine.reset();
  program = await deployProbe(dom0, 'linux-provider');
  counts = await host.counts();
  // What was said before is not about us.
  await host.complaints();
});
after(() => dom0.close());

test('everything that a domain can do works in dom0, and leaves nothing behind', async (t) => {
  await runChecks(t, dom0, { program, minChecks: MIN_CHECKS });
  await host.settled(counts);
});

test('a program that is killed while it holds one of everything leaves nothing behind', async () => {
  await dom0.start({ name: 'holder', argv: ['node', program, 'hold'], environment: {} });
  const holding = async () => (await dom0.log('holder')).startsWith('holding');
  await until(runtime, holding, { what: 'everything is held', timeoutMs: HOLD_TIMEOUT_MS });
  assert.equal((await dom0.processState('holder'))?.running, true);
  const held = await host.counts();
  assert(held.mappedGrants >= counts.mappedGrants + 8, JSON.stringify({ counts, held }));
  assert(held.watches > counts.watches);
  await dom0.stop('holder', { signal: 'SIGKILL' });
  await host.settled(counts);
});

test('the kernel and Xen had nothing to complain about', async () => {
  assert.deepEqual(await host.complaints(), []);
});
