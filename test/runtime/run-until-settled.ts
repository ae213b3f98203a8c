// For tests in virtual time: the value of a promise, for which the world has to go on.

import type { VirtualRuntime } from '../../src/runtime/virtual.ts';

/** What the promise gives, running the world until it does. @throws Error when `maxSteps` are over before that */
export async function runUntilSettled<T>(
  runtime: VirtualRuntime,
  promise: Promise<T>,
  maxSteps?: number,
): Promise<T> {
  let settled = false;
  const settle = () => {
    settled = true;
  };
  promise.then(settle, settle);
  const what = 'the promise settles';
  await runtime.runUntil(() => settled, maxSteps === undefined ? { what } : { what, maxSteps });
  return promise;
}
