// The toolstack takes a device from a guest that runs, and gives it back a little later (xl vkb-detach and vkb-attach; a
// display, which xl does not detach, goes the same way when its domain's configuration is changed).
//
// Invariant: the directories of a guest that is over meanwhile are not there again.

import type { DeviceSpec } from '../src/hypervisor/toolstack.ts';
import { SysError } from '../src/runtime/errors.ts';
import { sleep } from '../src/runtime/runtime.ts';
import { addDevice, eraseDevice, removeDevice } from '../src/xen/xenbus/toolstack.ts';
import type { Surroundings } from './surroundings.ts';

export interface Replugging {
  /** How long the device is away, in milliseconds. */
  readonly awayMs: number;
  /** What the guest has in its place before it has it again, and for how long, in milliseconds. */
  readonly slip?: { readonly spec: DeviceSpec; readonly forMs: number };
}

export async function replug(
  { runtime, host, detached, detachments, runs }: Surroundings,
  { device, backend, readOnlyFrontend }: DeviceSpec,
  { awayMs, slip }: Replugging,
): Promise<void> {
  const { store } = host.dom0;
  const { domid } = device;
  if (!runs(domid) || detached.has(domid)) return;
  const count = () => detachments.set(domid, (detachments.get(domid) ?? 0) + 1);
  detached.add(domid);
  count();
  try {
    // A backend that does not close in time loses the directories all the same.
    await removeDevice(runtime, store, device).catch(unlessSystem);
    await sleep(runtime, awayMs);
    if (!runs(domid)) return;
    if (slip !== undefined) {
      await addDevice(store, device, slip.spec);
      await sleep(runtime, slip.forMs);
      await removeDevice(runtime, store, device).catch(unlessSystem);
      if (!runs(domid)) return;
    }
    await addDevice(store, device, { backend, readOnlyFrontend });
    if (!runs(domid)) await eraseDevice(store, device);
  } finally {
    count();
    detached.delete(domid);
  }
}

function unlessSystem(error: unknown): void {
  if (error instanceof SysError) throw error;
}
