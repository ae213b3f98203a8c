// Mapping and unmapping grants (GNTTABOP_map_grant_ref, GNTTABOP_unmap_grant_ref): the mapping domain's
// maptrack and the granting domain's table, brought together.
//
// Invariants: each operation of a batch has its own status, and one that failed changed nothing; a frame's
// reference is given back after the view of it was revoked and its grant's bits were cleared.

import {
  GNTST_bad_domain,
  GNTST_bad_handle,
  GNTST_no_space,
  GNTST_okay,
} from '../abi/grant-table.ts';
import { SysError } from '../runtime/errors.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import type { Window } from './address-space.ts';
import type { HostedDomain } from './hosted-domain.ts';
import type { MachineMemory } from './machine-memory.ts';
import { INVALID_HANDLE } from './maptrack.ts';

/** What grant operations need of the hypervisor. */
export interface GrantWorld {
  readonly memory: MachineMemory;
  domain(domid: DomId): HostedDomain | undefined;
}

export interface MapBatch {
  /** The domain whose grants are mapped. */
  readonly domid: DomId;
  readonly refs: Uint32Array;
  readonly writable: boolean;
  /** For devices alone: the window is never looked at. */
  readonly device: boolean;
  /** Entries of this process's memory map that the window may take. */
  readonly maxAreas: number;
}

/** A mapped grant, or why it is not. */
export interface MapOutcome {
  readonly status: number;
  readonly handle: number;
  readonly frame: number;
}

/** Maps one grant, without a view of it. */
export function mapGrant(
  world: GrantWorld,
  mapper: HostedDomain,
  grant: { domid: DomId; ref: Gref; writable: boolean },
): MapOutcome {
  const granter = world.domain(grant.domid);
  if (!granter) return failed(GNTST_bad_domain);
  const handle = mapper.maptrack.take(grant);
  if (handle === INVALID_HANDLE) return failed(GNTST_no_space);
  const { ref, writable } = grant;
  const frame = granter.grants.pin({ ref, writable, by: mapper.domid });
  if (frame > 0) return { status: GNTST_okay, handle, frame };
  mapper.maptrack.release(handle);
  return failed(frame);
}

/** Ends one mapping; its frame's reference goes to the caller. */
export function unmapGrant(world: GrantWorld, mapper: HostedDomain, handle: number): MapOutcome {
  const grant = mapper.maptrack.get(handle);
  if (!grant) return failed(GNTST_bad_handle);
  mapper.maptrack.release(handle);
  // A domain whose grants are mapped stays in the world until they are not (it is dying at most).
  const frame = world.domain(grant.domid)!.grants.unpin(grant);
  return { status: GNTST_okay, handle, frame };
}

/** Maps a batch into a new window of `mapper`, where nothing is shown yet. @throws SysError, with everything undone */
export function mapGrants(
  world: GrantWorld,
  mapper: HostedDomain,
  { domid, refs, writable, device, maxAreas }: MapBatch,
): { window: Window; statuses: Int16Array; areas: number } {
  mapper.space.reserve();
  const statuses = new Int16Array(refs.length);
  const frames = new Uint32Array(refs.length);
  const handles = new Uint32Array(refs.length).fill(INVALID_HANDLE);
  for (let index = 0; index < refs.length; index++) {
    const outcome = mapGrant(world, mapper, { domid, ref: refs[index]! as Gref, writable });
    statuses[index] = outcome.status;
    frames[index] = outcome.frame;
    handles[index] = outcome.handle;
  }
  try {
    if (device) return { window: mapper.space.add({ frames, handles }), statuses, areas: 0 };
    const areas = mapper.space.areasOf(frames);
    checkAreas(areas, maxAreas);
    const window = mapper.space.addUnshown(world.memory, { frames, handles }, writable);
    return { window, statuses, areas };
  } catch (error) {
    unmapHandles(world, mapper, handles);
    throw error;
  }
}

function checkAreas(areas: number, maxAreas: number): void {
  if (areas <= maxAreas) return;
  const context = `mapping pages that lie in ${areas} places, where ${maxAreas} may be used`;
  throw new SysError({ call: 'mmap', errnoName: 'E2BIG', context });
}

/** Closes a window over grants. @returns a status for each of its mappings */
export function unmapGrants(
  world: GrantWorld,
  mapper: HostedDomain,
  window: Window & { readonly handles: Uint32Array },
): Int16Array {
  mapper.space.close(window);
  return unmapHandles(world, mapper, window.handles);
}

function unmapHandles(world: GrantWorld, mapper: HostedDomain, handles: Uint32Array): Int16Array {
  const statuses = new Int16Array(handles.length);
  const frames = new Uint32Array(handles.length);
  for (let index = 0; index < handles.length; index++) {
    const outcome = unmapGrant(world, mapper, handles[index]!);
    statuses[index] = outcome.status;
    frames[index] = outcome.frame;
  }
  world.memory.release(frames);
  return statuses;
}

function failed(status: number): MapOutcome {
  return { status, handle: INVALID_HANDLE, frame: 0 };
}
