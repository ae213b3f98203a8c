// The lab's time in a computer that is suspended and goes on: a wait is as long as what was lived through of it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { livedRuntime } from '../../lab/lived-time.ts';
import { until } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';

const HOUR_MS = 3_600_000;
/** What of a suspension may count, for the moment before it and the one after it. */
const COUNTED_MS = 5_000;

/** A computer whose clock goes on while it is suspended: every timer goes off late. */
class Computer extends VirtualRuntime {
  #suspendedMs = 0;

  /** What it was not suspended. */
  get awakeMs(): number {
    return super.nowMs();
  }

  suspend(durationMs: number): void {
    this.#suspendedMs += durationMs;
  }

  override nowMs(): number {
    return super.nowMs() + this.#suspendedMs;
  }
}

/** Has a condition that holds after 20 seconds waited for, 30 at most, and suspends the computer meanwhile. */
async function suspendedWait(lived: boolean): Promise<void> {
  const computer = new Computer(1);
  let answered = false;
  computer.after(10_000, () => computer.suspend(HOUR_MS));
  computer.after(20_000, () => {
    answered = true;
  });
  const waiting = until(lived ? livedRuntime(computer) : computer, () => answered, {
    what: 'dom0 answers',
    timeoutMs: 30_000,
    intervalMs: 250,
  });
  await runUntilSettled(computer, waiting);
}

test('an hour in which the computer was suspended is no silence of dom0', async () => {
  await suspendedWait(true);
});

test('without lived time the same wait is given up: the test above can fail', async () => {
  await assert.rejects(suspendedWait(false), /gave up after 30000 ms: dom0 answers/);
});

test('a silence that is lived through ends a wait, suspended or not', async () => {
  for (const suspensions of [0, 3]) {
    const computer = new Computer(1);
    const runtime = livedRuntime(computer);
    for (let n = 1; n <= suspensions; n++)
      computer.after(n * 7_000, () => computer.suspend(HOUR_MS));
    const waiting = until(runtime, () => false, { what: 'dom0 answers', timeoutMs: 30_000 });
    await assert.rejects(runUntilSettled(computer, waiting), /gave up after 30000 ms/);
  }
});

test('whatever the suspensions, a task runs when its delay was lived through, and at no other time', async () => {
  const times = fc.integer({ min: 0, max: 200_000 });
  const suspensions = fc.array(fc.record({ atMs: times, durationMs: times }), { maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(times, suspensions, async (delayMs, list) => {
      const computer = new Computer(1);
      const runtime = livedRuntime(computer);
      for (const { atMs, durationMs } of list) {
        computer.after(atMs, () => computer.suspend(durationMs));
      }
      let ran = false;
      runtime.after(delayMs, () => {
        ran = true;
      });
      await computer.runUntil(() => ran, { what: 'the task runs' });
      assert(runtime.nowMs() >= delayMs);
      assert(computer.awakeMs <= delayMs);
      assert(computer.awakeMs >= delayMs - list.length * COUNTED_MS);
    }),
  );
});

test('a wait that is cancelled while the computer is suspended has no consequence', async () => {
  const computer = new Computer(1);
  const runtime = livedRuntime(computer);
  const timer = runtime.after(30_000, () => assert.fail('it was cancelled'));
  computer.after(10_000, () => computer.suspend(HOUR_MS));
  computer.after(10_500, () => timer.cancel());
  await assert.rejects(
    computer.runUntil(() => false, { what: 'its end' }),
    /stopped before/,
  );
});
