// A machine whose domain 0 has opened the device of drm-xen-zcopy.ts.

import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';
import { DrmXenZcopy } from '../../src/zcopy/drm-xen-zcopy.ts';
import type { SharingDomain } from '../../src/zcopy/zcopy.ts';
import type { MachineOptions } from '../hypervisor/world.ts';
import { type SharingWorld, sharing } from './world.ts';

export interface DrmWorld extends SharingWorld {
  readonly device: DrmXenZcopy;
}

export interface DrmOptions extends MachineOptions {
  readonly maxHandles?: number;
  /** What the device is opened on. */
  readonly domain?: (dom0: GuestDomain, runtime: Runtime) => SharingDomain;
}

/** Runs `body`, closes the device, and nothing may be left. */
export function onDevice(
  body: (world: DrmWorld) => Promise<void>,
  { maxHandles, domain = (dom0) => dom0, ...machine }: DrmOptions = {},
): Promise<void> {
  return sharing(async (world) => {
    const { runtime, dom0, run } = world;
    const options = { runtime, domain: domain(dom0, runtime) };
    const device = new DrmXenZcopy(maxHandles === undefined ? options : { ...options, maxHandles });
    await body({ ...world, device });
    await run(device[Symbol.asyncDispose]());
  }, machine);
}
