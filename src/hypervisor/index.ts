// `xen-zcopy/hypervisor`: Xen in this process, for programs and their tests. docs/fidelity.md says what it
// leaves out.

export { type DomainBooks, type HypervisorBooks, leakReport } from './books.ts';
export type {
  Attachment,
  BusExtent,
  DeviceMapping,
  DmaDirection,
  DmaImporter,
} from './dma-buf.ts';
export type { Guest, GuestEnd } from './guest.ts';
export { GuestBuffer } from './guest-buffer.ts';
export type { GuestDomain } from './guest-domain.ts';
export { GuestExport } from './guest-export.ts';
export type { DomainLimits, DomainState } from './hosted-domain.ts';
export type { Hypervisor } from './hypervisor.ts';
export {
  EnteredMachine,
  type EnterOptions,
  enterMachine,
} from './process/enter-machine.ts';
export { GuestListener, type GuestListenerOptions, listenForGuests } from './process/listener.ts';
export type { ResolveOptions } from './process/lookups.ts';
export {
  type GuestConfig,
  type GuestWorkerConfig,
  XenHost,
  type XenHostOptions,
} from './xen-host.ts';
