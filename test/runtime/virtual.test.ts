import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../../src/runtime/random.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';

/** The order in which ten tasks and three timers run under one seed. */
async function orderUnder(seed: number): Promise<string> {
  const runtime = new VirtualRuntime(seed);
  const order: string[] = [];
  for (let task = 0; task < 10; task++) runtime.defer(() => void order.push(`${task}`));
  for (const delayMs of [20, 10, 10]) {
    void sleep(runtime, delayMs).then(() => order.push(`${delayMs}@${runtime.nowMs()}`));
  }
  await runtime.runUntil(() => order.length === 13, { what: 'all ran' });
  return order.join(' ');
}

test('a seed replays exactly, and different seeds differ', async () => {
  assert.equal(await orderUnder(1), await orderUnder(1));
  assert.notEqual(await orderUnder(1), await orderUnder(2));
});

test('time stands still while something is runnable and jumps to the next timer', async () => {
  const order = await orderUnder(3);
  assert.match(order, /10@10 10@10 20@20$/);
});

test('a world that stops short says what it waited for', async () => {
  const runtime = new VirtualRuntime(1);
  await assert.rejects(
    runtime.runUntil(() => false, { what: 'the impossible' }),
    /stopped before: the impossible/,
  );
});

test('seeded random numbers are the same on every machine', () => {
  const random = new SeededRandom(2018);
  const first = [random.u32(), random.u32(), random.below(10)];
  const again = new SeededRandom(2018);
  assert.deepEqual(first, [again.u32(), again.u32(), again.below(10)]);
  assert(Array.from({ length: 1000 }, () => random.below(7)).every((n) => n >= 0 && n < 7));
});

test('every promise reaction has run before the next task is chosen, however long the chain', async () => {
  const runtime = new VirtualRuntime(1);
  let reactions = 0;
  const seen: number[] = [];
  for (let task = 0; task < 200; task++) {
    runtime.defer(() => {
      seen.push(reactions);
      void (async () => {
        for (let link = 0; link < 100; link++) await undefined;
        reactions += 1;
      })();
    });
  }
  await runtime.runUntil(() => runtime.runnable === 0, { what: 'all ran' });
  assert.deepEqual(
    seen,
    seen.map((_, index) => index),
  );
  assert.equal(runtime.steps, 200);
});

test('a task that fails ends the run that it is in, and the next one goes on', async () => {
  const runtime = new VirtualRuntime(1);
  runtime.defer(() => assert.fail('a task that fails'));
  await assert.rejects(
    runtime.runUntil(() => false, { what: 'the end' }),
    /a task that fails/,
  );
  runtime.defer(() => {});
  await runtime.runUntil(() => runtime.steps === 2, { what: 'two steps' });
});
