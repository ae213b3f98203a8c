// The timers of virtual time, against a list that is sorted anew each time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Timer } from '../../src/runtime/runtime.ts';
import { TimerQueue } from '../../src/runtime/timer-queue.ts';

test('property: timers come in the order of their times, those of one time in the order of setting', () => {
  const steps = fc.array(
    fc.oneof(
      { weight: 4, arbitrary: fc.record({ add: fc.integer({ min: 0, max: 20 }) }) },
      { weight: 2, arbitrary: fc.record({ cancel: fc.nat() }) },
      { weight: 1, arbitrary: fc.record({ takeUpTo: fc.integer({ min: 0, max: 20 }) }) },
    ),
    { maxLength: 400, size: 'max' },
  );
  fc.assert(
    fc.property(steps, (script) => {
      const queue = new TimerQueue();
      let model: { atMs: number; id: number }[] = [];
      const handles: Timer[] = [];
      const taken: number[] = [];
      const expected: number[] = [];
      for (const step of script) {
        if ('add' in step) {
          const id = handles.length;
          handles.push(queue.add(step.add, () => taken.push(id)));
          model.push({ atMs: step.add, id });
          model.sort((a, b) => a.atMs - b.atMs || a.id - b.id);
        } else if ('cancel' in step) {
          const id = step.cancel % (handles.length + 1);
          handles[id]?.cancel();
          model = model.filter((timer) => timer.id !== id);
        } else {
          for (let task = queue.take(step.takeUpTo); task; task = queue.take(step.takeUpTo)) task();
          expected.push(...model.filter(({ atMs }) => atMs <= step.takeUpTo).map(({ id }) => id));
          model = model.filter(({ atMs }) => atMs > step.takeUpTo);
        }
        assert.deepEqual(taken, expected);
        assert.equal(queue.nextMs, model[0]?.atMs);
        assert.equal(queue.size, model.length);
      }
    }),
  );
});
