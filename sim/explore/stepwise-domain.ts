// A domain whose hypercalls take their time: each one begins and ends in a step of its own, so that anything can happen
// before it is done and before its caller goes on.

import { type Runtime, turn } from '../../src/runtime/runtime.ts';
import type { Domain } from '../../src/xen/domain.ts';

export function stepwiseDomain(domain: Domain, runtime: Runtime): Domain {
  const { foreign, events } = domain;
  return {
    domid: domain.domid,
    provider: domain.provider,
    grants: domain.grants,
    memory: domain.memory,
    store: domain.store,
    foreign: {
      export: (request) => foreign.export(request),
      map: async (request) => {
        await turn(runtime);
        const mapping = await foreign.map(request);
        const unmap = mapping[Symbol.asyncDispose].bind(mapping);
        await turn(runtime);
        // The account that comes above adds to the unmapping in the same way.
        return Object.defineProperty(mapping, Symbol.asyncDispose, {
          configurable: true,
          value: async () => {
            await turn(runtime);
            await unmap();
          },
        });
      },
    },
    events: {
      allocUnbound: (request) => events.allocUnbound(request),
      bindInterdomain: (request) => events.bindInterdomain(request),
    },
    [Symbol.asyncDispose]: () => domain[Symbol.asyncDispose](),
  };
}
