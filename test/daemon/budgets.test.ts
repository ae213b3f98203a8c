// What the daemon tells about budgets: whose is whose, what was refused, who had to wait; in the status and the metrics.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Daemon } from '../../src/daemon/daemon.ts';
import { DisplayFrontend } from '../../src/display/frontend.ts';
import type { GuestDisplay } from '../../src/display/guest-display.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { Metrics } from '../../src/server/metrics.ts';
import { RefusalCounts } from '../../src/server/refusal-counts.ts';
import { DEFAULT_BUDGET, HELD_KINDS, RATE_KINDS } from '../../src/zcopy/budget.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';

const SHAPE = { width: 64, height: 48, format: XRGB8888 };
const MACHINE_FRAMES = 16_384;

test('a guest has the budget of its name; what it was refused and how often it waited is told, by kind', async () => {
  const runtime = new VirtualRuntime(1);
  const run = <T>(promise: Promise<T>) => runUntilSettled(runtime, promise, 300_000);
  const host = await run(XenHost.start({ runtime, machineFrames: MACHINE_FRAMES }));
  const small = { ...DEFAULT_BUDGET, buffers: 1, requestsPerSecond: 1 };
  const guestBudgets = new Map([['small', small]]);
  const options = { budget: DEFAULT_BUDGET, guestBudgets, refreshHz: 60, hostPaths: {} };
  const daemon = await run(Daemon.start({ ...options, runtime, domain: host.dom0 }));
  const metrics = new Metrics(daemon, { viewers: () => 0, refused: new RefusalCounts() });
  const connect = async (name: string): Promise<GuestDisplay> => {
    const displays = [{ uniqueId: name, ...SHAPE }];
    const domain = host.enter(await host.createGuest({ name, displays }));
    return new Promise((resolve, reject) => {
      DisplayFrontend.open({ runtime, domain, onConnected: resolve }).catch(reject);
    });
  };
  const [large, little] = [await run(connect('large')), await run(connect('small'))];
  const refused = (error: unknown) => error instanceof SysError && error.errnoName === 'ENOMEM';
  for (const display of [large, little]) await run(display.createBuffer(SHAPE));
  await run(large.createBuffer(SHAPE));
  await assert.rejects(run(little.createBuffer(SHAPE)), refused);

  const guests = new Map(daemon.status().guests.map((guest) => [guest.name, guest]));
  assert.deepEqual(guests.get('large')!.budget, DEFAULT_BUDGET);
  assert.deepEqual(guests.get('large')!.refused, {});
  assert.deepEqual(guests.get('large')!.throttled, {});
  const told = guests.get('small')!;
  assert.deepEqual(told.budget, small);
  assert.deepEqual(told.refused, { 'over-budget-buffers': 1 });
  assert.deepEqual(Object.keys(told.throttled), ['requestsPerSecond']);
  assert.deepEqual(Object.keys(told.held), [...HELD_KINDS]);
  const { held } = told;
  assert.deepEqual([held.buffers, held.bytes, held.connectors], [1, 64 * 48 * 4, 1]);

  const lines = (await run(metrics.text())).split('\n');
  const label = `domid="${told.domid}"`;
  for (const kind of [...HELD_KINDS, ...RATE_KINDS]) {
    assert(lines.includes(`guest_budget{${label},kind="${kind}"} ${small[kind]}`), kind);
  }
  for (const kind of HELD_KINDS) {
    assert(lines.includes(`guest_held{${label},kind="${kind}"} ${held[kind]}`), kind);
  }
  assert(lines.includes(`guest_refused_total{${label},reason="over-budget-buffers"} 1`));
  const waited = told.throttled.requestsPerSecond;
  assert(lines.includes(`guest_throttled_total{${label},kind="requestsPerSecond"} ${waited}`));

  for (const guest of host.guests) await run(guest.destroy());
  await runtime.runUntil(() => daemon.status().guests.length === 0, { what: 'nobody is served' });
  await run(daemon[Symbol.asyncDispose]());
  await run(host[Symbol.asyncDispose]());
});
