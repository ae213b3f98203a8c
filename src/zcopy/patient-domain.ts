// A domain whose mappings are given back for certain: unmapping that fails (the kernel has no memory to revoke a view
// with) is tried again until it is done, at the pace of every release.
//
// Invariant: disposing a mapping resolves when it is unmapped, and never rejects with a SysError. So a scope that
// owns it (the rings of a connection, a page directory) is not over before its guest's pages are let go, and what
// the guest is charged for them stays charged as long.

import type { Runtime } from '../runtime/runtime.ts';
import type { Domain, ForeignMapping } from '../xen/domain.ts';
import { Release } from './release.ts';
import { unmapStep } from './shared-buffer.ts';

/** `domain` with patient mappings; disposing the result disposes `domain`. */
export function patientDomain(runtime: Runtime, domain: Domain): Domain {
  return {
    domid: domain.domid,
    provider: domain.provider,
    grants: domain.grants,
    memory: domain.memory,
    events: domain.events,
    store: domain.store,
    foreign: {
      map: async (request) => patientMapping(runtime, await domain.foreign.map(request)),
      export: (request) => domain.foreign.export(request),
    },
    [Symbol.asyncDispose]: () => domain[Symbol.asyncDispose](),
  };
}

function patientMapping(runtime: Runtime, mapping: ForeignMapping): ForeignMapping {
  const release = new Release({ runtime, steps: [unmapStep(mapping)] });
  return {
    domid: mapping.domid,
    pages: mapping.pages,
    writable: mapping.writable,
    areas: mapping.areas,
    get bytes() {
      return mapping.bytes;
    },
    [Symbol.asyncDispose]: async () => {
      await release.release();
    },
  };
}
