// How a storm of events by the other end is slowed down: past a rate the port stays masked for a moment, which
// is what a handler's promise does (XSA-332).

import { RateLimit } from '../runtime/rate-limit.ts';
import { type Runtime, sleep } from '../runtime/runtime.ts';
import type { EventHandler } from '../xen/domain.ts';

/** More than any honest stream makes: a frame and its slot, forty thousand times a second. */
const EVENTS_PER_SECOND = 20_000;
const EVENTS_BURST = 1000;
const PAUSE_MS = 1;

export function paced(runtime: Runtime, handler: () => void): EventHandler {
  const limit = new RateLimit(runtime, { perSecond: EVENTS_PER_SECOND, burst: EVENTS_BURST });
  return () => (limit.tryTake() ? handler() : sleep(runtime, PAUSE_MS).then(handler));
}
