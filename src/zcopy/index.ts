// `xen-zcopy/zcopy`: buffers shared with other domains, for programs. A domain to share with comes from a
// provider: `xen-zcopy/linux` on a Xen host, `xen-zcopy/hypervisor` in the process.

export { PAGE_SIZE } from '../abi/page.ts';
export { ProtocolViolation, SysError } from '../runtime/errors.ts';
export { type Runtime, stderrLogger, systemRuntime } from '../runtime/runtime.ts';
export {
  type Caching,
  type Domain,
  type ExportedRefs,
  type ForeignMapping,
  GrantMapError,
  type LentPages,
  type SharedPages,
} from '../xen/domain.ts';
export { DOM0, type DomId, domId, type Gref, gref } from '../xen/ids.ts';
export type {
  AllocateRequest,
  Contiguity,
  ContiguityKind,
  DmaBuf,
  GivenBack,
  LocalBuffer,
  Memory,
  MemoryPool,
} from '../xen/memory.ts';
export type { HeldBuffer, RateKind } from '../xen/xenbus/driver.ts';
export { accountedDomain } from './accounted-domain.ts';
export { allocateFor, type MemorySource, satisfies } from './allocator.ts';
export { type Budget, DEFAULT_BUDGET, type Held, type HeldKind } from './budget.ts';
export { Account, type AccountOptions, type Charge, Ledger } from './ledger.ts';
export type { Holder, ReleaseOutcome, ReleaseState, ReleaseWait } from './release.ts';
export { type Extent, SharedBuffer } from './shared-buffer.ts';
export {
  type FromRefsRequest,
  type SharingDomain,
  type ToRefsRequest,
  Zcopy,
  type ZcopyOptions,
} from './zcopy.ts';
