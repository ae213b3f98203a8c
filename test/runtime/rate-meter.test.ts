import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RateMeter } from '../../src/runtime/rate-meter.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';

test('the rate is that of the last second, and falls to 0 by itself', async () => {
  const runtime = new VirtualRuntime(1);
  const meter = new RateMeter(runtime);
  let events = 0;
  const count = () => {
    meter.count();
    events += 1;
    if (events < 150) runtime.after(20, count);
  };
  runtime.after(0, count);
  await runtime.runUntil(() => events === 150, { what: 'three seconds of events' });
  assert.equal(meter.perSecond(), 50);

  let later = false;
  runtime.after(1200, () => {
    later = true;
  });
  await runtime.runUntil(() => later, { what: 'a silent second' });
  assert.equal(meter.perSecond(), 0);
});
