// A machine for tests of the hypervisor below xenstore: domains without a connection to xenstored, and a
// check at the end that nothing is left of anything.

import assert from 'node:assert/strict';
import { NO_STORE } from '../../sim/no-store.ts';
import { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { DomainLimits, HostedDomain } from '../../src/hypervisor/hosted-domain.ts';
import { Hypervisor } from '../../src/hypervisor/hypervisor.ts';
import type { Iommu } from '../../src/hypervisor/iommu.ts';
import type { AllocationFault } from '../../src/hypervisor/machine-memory.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { DOM0 } from '../../src/xen/ids.ts';

/** Small enough to fill. */
const MACHINE_FRAMES = 16_384;

export interface World {
  readonly runtime: VirtualRuntime;
  readonly hypervisor: Hypervisor;
  readonly dom0: GuestDomain;
  /** A running domain with code in this thread. */
  guest(name: string, limits?: Partial<DomainLimits>): GuestDomain;
}

/** Runs `body` on a fresh machine, closes all domains and asserts that every frame is free again. */
export async function onMachine(
  body: (world: World) => Promise<void>,
  options: MachineOptions = {},
): Promise<void> {
  const { seed = 1, dom0Limits = {}, machineFrames = MACHINE_FRAMES, iommu, fault } = options;
  const runtime = new VirtualRuntime(seed);
  const allocationFault = fault && { allocationFault: fault };
  const hypervisor = new Hypervisor({ runtime, machineFrames, dom0Limits, ...allocationFault });
  const enter = ({ domid }: HostedDomain) => {
    const port = hypervisor.enter(domid);
    return new GuestDomain({ port, runtime, connectStore: () => NO_STORE, iommu });
  };
  const dom0 = enter(hypervisor.domain(DOM0)!);
  const guest = (name: string, limits?: Partial<DomainLimits>) =>
    enter(hypervisor.createDomain({ name, limits: limits ?? {} }));
  await body({ runtime, hypervisor, dom0, guest });
  hypervisor[Symbol.dispose]();
  assert.equal(hypervisor.memory.freeFrames, machineFrames - 1);
}

export interface MachineOptions {
  readonly seed?: number;
  readonly dom0Limits?: Partial<DomainLimits>;
  readonly machineFrames?: number;
  /** In front of the devices of every domain. */
  readonly iommu?: Iommu;
  readonly fault?: AllocationFault;
}
