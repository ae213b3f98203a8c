// A host on the real clock for tests with guests in workers.

import assert from 'node:assert/strict';
import { leakReport } from '../../../src/hypervisor/books.ts';
import { XenHost } from '../../../src/hypervisor/xen-host.ts';
import { systemRuntime, until } from '../../../src/runtime/runtime.ts';

/** Longest wait for something that takes milliseconds on an idle machine. */
const PATIENCE_MS = 120_000;

/** Waits for a condition that other threads or processes bring about. */
export function eventually(
  condition: () => boolean | Promise<boolean>,
  what: string,
): Promise<void> {
  return until(systemRuntime(), condition, { what, timeoutMs: PATIENCE_MS });
}

/**
 * Runs `body` on a fresh host, after which all guests must be gone and the books empty. Also when it fails
 * the host is switched off, or its guests' threads would keep the process alive.
 */
export async function onHost(body: (host: XenHost) => Promise<void>): Promise<void> {
  const host = await XenHost.start({ runtime: systemRuntime() });
  try {
    const empty = host.hypervisor.memory.freeFrames;
    await body(host);
    assert.deepEqual(host.guests, []);
    // Pages that dom0 wanted back while a guest still mapped them are tried again at their own pace.
    const clean = () => leakReport(host.hypervisor.books()).length === 0;
    await eventually(clean, 'dom0 got back what it had lent');
    assert.equal(host.hypervisor.memory.freeFrames, empty);
  } finally {
    await host[Symbol.asyncDispose]();
  }
}
