// Runs one thread's operation with another's in the middle of it, at a chosen step: the steps of a
// protocol over shared memory are its Atomics calls, so stopping before each of them in turn tries every
// place where the other thread can come in between.

import type { TestContext } from 'node:test';

const STEPS = ['and', 'compareExchange', 'exchange', 'load', 'or', 'store'] as const;

/**
 * Runs `operation`, with `other` before its atomic step number `step` (or afterwards, when it has fewer).
 * @returns whether the operation has that step
 */
export function preempted(
  context: TestContext,
  { step, operation, other }: { step: number; operation: () => void; other: () => void },
): boolean {
  let count = 0;
  let interrupted = false;
  const mocks = STEPS.map((name) => {
    const original = Atomics[name] as (...args: unknown[]) => number;
    return context.mock.method(Atomics, name, (...args: unknown[]) => {
      if (!interrupted && count++ === step) {
        interrupted = true;
        other();
      }
      return original.apply(Atomics, args);
    });
  });
  try {
    operation();
  } finally {
    for (const { mock } of mocks) mock.restore();
  }
  if (!interrupted) other();
  return interrupted;
}
