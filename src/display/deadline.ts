// The time within which a request is answered, whatever happens: xen-drm-front gives up after 3 s, and
// then no longer knows what became of its buffer.

import { SysError } from '../runtime/errors.ts';
import { type Runtime, withTimeout } from '../runtime/runtime.ts';

/** Longest time from taking a request to answering it, in milliseconds; well below the frontend's 3000. */
export const ANSWER_TIMEOUT_MS = 2500;

/**
 * The result of `work`, which goes on when it takes too long: the caller sees to what becomes of it.
 * @throws SysError (ETIMEDOUT) after ANSWER_TIMEOUT_MS
 */
export function inTime<T>(runtime: Runtime, work: Promise<T>, context: string): Promise<T> {
  return withTimeout(runtime, work, {
    timeoutMs: ANSWER_TIMEOUT_MS,
    onTimeout: () =>
      new SysError({ call: `${ANSWER_TIMEOUT_MS} ms of waiting`, errnoName: 'ETIMEDOUT', context }),
  });
}
