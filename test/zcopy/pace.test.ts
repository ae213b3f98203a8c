// How a guest is slowed down: rates in virtual time, and what the defaults leave alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RateLimit } from '../../src/runtime/rate-limit.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { domId } from '../../src/xen/ids.ts';
import { DEFAULT_BUDGET, type RATE_KINDS } from '../../src/zcopy/budget.ts';
import { Ledger } from '../../src/zcopy/ledger.ts';
import { Pace } from '../../src/zcopy/pace.ts';

const NEVER = new AbortController().signal;

function setUp(rates: Partial<typeof DEFAULT_BUDGET> = {}) {
  const runtime = new VirtualRuntime(1);
  const budget = { ...DEFAULT_BUDGET, ...rates };
  const account = new Ledger().open({ domid: domId(1), name: 'guest', budget });
  const run = async (promise: Promise<void>) => {
    let over = false;
    void promise.then(() => {
      over = true;
    });
    await runtime.runUntil(() => over, { what: 'the rest is over' });
  };
  return { runtime, account, pace: new Pace(runtime, account), run };
}

test('over any time no more is done than the rate and one second of it before, plus one slice', async () => {
  const slices = fc.array(fc.integer({ min: 1, max: 32 }), { minLength: 1, maxLength: 200 });
  await fc.assert(
    fc.asyncProperty(slices, fc.integer({ min: 1, max: 2000 }), async (amounts, perSecond) => {
      const { runtime, pace, run } = setUp({ requestsPerSecond: perSecond });
      let done = 0;
      for (const amount of amounts) {
        // The work of a slice is done only when what went before is paid for, or after the longest rest.
        const paid = pace.rest('requestsPerSecond', NEVER);
        if (paid !== undefined) await run(paid);
        const secondsFor = 1 + runtime.nowMs() / 1000;
        assert(paid !== undefined || done <= perSecond * secondsFor + 1e-6);
        pace.spend('requestsPerSecond', amount);
        done += amount;
      }
    }),
    { numRuns: 50 },
  );
});

test('who went beyond a rate rests for as long as that takes to be made up for, and is counted', async () => {
  const { runtime, account, pace, run } = setUp({ requestsPerSecond: 100 });
  pace.spend('requestsPerSecond', 100);
  assert.equal(pace.rest('requestsPerSecond', NEVER), undefined, 'a second’s worth at once');
  pace.spend('requestsPerSecond', 50);
  await run(pace.rest('requestsPerSecond', NEVER)!);
  assert.equal(runtime.nowMs(), 500);
  assert.equal(pace.rest('requestsPerSecond', NEVER), undefined);
  assert.deepEqual(account.throttled, { requestsPerSecond: 1 });
  assert.equal(pace.rest('wakeupsPerSecond', NEVER), undefined, 'each kind by itself');
});

test('a rest is never longer than a frontend’s patience, and over at once when its device goes', async () => {
  const { runtime, pace, run } = setUp({ mappedPagesPerSecond: 1 });
  pace.spend('mappedPagesPerSecond', 1_000_000);
  await run(pace.rest('mappedPagesPerSecond', NEVER)!);
  assert.equal(runtime.nowMs(), 1000);
  const going = new AbortController();
  const rest = pace.rest('mappedPagesPerSecond', going.signal)!;
  going.abort();
  await run(rest);
  await run(pace.rest('mappedPagesPerSecond', going.signal)!);
  assert.equal(runtime.nowMs(), 1000);
});

test('four screens at 240 flips a second, a fast mouse and changes of mode are never made to wait', async () => {
  const { runtime, account, pace, run } = setUp();
  const done = (kind: (typeof RATE_KINDS)[number], amount: number) => {
    pace.spend(kind, amount);
    assert.equal(pace.rest(kind, NEVER), undefined, `${amount} ${kind} at ${runtime.nowMs()} ms`);
  };
  const TICKS_PER_SECOND = 240;
  for (let tick = 0; tick < 60 * TICKS_PER_SECOND; tick++) {
    done('requestsPerSecond', 4);
    done('wakeupsPerSecond', 4 + 1000 / TICKS_PER_SECOND);
    if (tick % (5 * TICKS_PER_SECOND) === 0) {
      // All screens change their mode: a buffer each is destroyed, made, attached and shown.
      done('mappedPagesPerSecond', 4 * 8100);
      done('requestsPerSecond', 4 * 4 + 4);
    }
    // The drivers of four displays and a keyboard are loaded anew.
    if (tick % (10 * TICKS_PER_SECOND) === 0) done('storeEventsPerSecond', 5 * 4);
    await run(sleep(runtime, 1000 / TICKS_PER_SECOND));
  }
  assert.deepEqual(account.throttled, {});
});

test('a limit of tokens that may be overdrawn is as good as one that may not', async () => {
  const { runtime, run } = setUp();
  const limit = new RateLimit(runtime, { perSecond: 10, burst: 2 });
  limit.spend(4);
  assert.equal(limit.overdrawnMs, 200);
  assert(!limit.tryTake());
  await run(sleep(runtime, 300));
  assert.equal(limit.overdrawnMs, 0);
  assert(limit.tryTake());
  assert(!limit.tryTake());
});
