// The toolstack takes a device from a guest that runs, and gives it back a little later (xl vkb-detach and vkb-attach; a
// display, which xl does not detach, goes the same way when its domain's configuration is changed).
//
// Invariant: the directories of a guest that is over meanwhile are not there again.

import type { DeviceSpec } from '../src/hypervisor/toolstack.ts';
import { SysError } from '../src/runtime/errors.ts';
import { sleep } from '../src/runtime/runtime.ts';
import { addDevice, eraseDevice, removeDevice } from '../src/xen/xenbus/toolstack.ts';
import type { Surroundings } from './surroundings.ts';

export async function replug(
  { runtime, host, detached, runs }: Surroundings,
  { device, backend, readOnlyFrontend }: DeviceSpec,
  { awayMs }: { readonly awayMs: number },
): Promise<void> {
  const { store } = host.dom0;
  const { domid } = device;
  if (!runs(domid) || detached.has(domid)) return;
  detached.add(domid);
  try {
    // A backend that does not close in time loses the directories all the same.
    await removeDevice(runtime, store, device).catch(unlessSystem);
    await sleep(runtime, awayMs);
    if (!runs(domid)) return;
    await addDevice(store, device, { backend, readOnlyFrontend });
    if (!runs(domid)) await eraseDevice(store, device);
  } finally {
    detached.delete(domid);
  }
}

function unlessSystem(error: unknown): void {
  if (error instanceof SysError) throw error;
}
