// A domain whose hypercalls take their time: each one begins and ends in a step of its own, so that anything can happen
// before it is done and before its caller goes on.
//
// Resources are changed in place, as only a provider's own buffer can be lent; the accounts that come above add to them
// in the same way.

import { type Runtime, turn } from '../../src/runtime/runtime.ts';
import type { Domain } from '../../src/xen/domain.ts';

export function stepwiseDomain(domain: Domain, runtime: Runtime): Domain {
  const { grants, foreign, memory, events } = domain;
  const call = async <T>(make: () => Promise<T>): Promise<T> => {
    await turn(runtime);
    const made = await make();
    await turn(runtime);
    return made;
  };
  const slow = <T extends object, K extends keyof T>(resource: T, method: K): T =>
    afterTurn(runtime, resource, method);
  return {
    domid: domain.domid,
    provider: domain.provider,
    store: domain.store,
    grants: {
      share: (request) => grants.share(request),
      lend: async (request) => slow(await call(() => grants.lend(request)), 'end'),
    },
    memory: {
      allocate: (request) => memory.allocate(request),
      adopt: (fd) => memory.adopt(fd),
      createPool: async (request) => {
        const pool = await call(() => memory.createPool(request));
        const allocate = pool.allocate.bind(pool);
        pool.allocate = async (pages) => slow(await call(() => allocate(pages)), 'free');
        return slow(pool, Symbol.asyncDispose);
      },
    },
    foreign: {
      export: (request) => foreign.export(request),
      map: async (request) => slow(await call(() => foreign.map(request)), Symbol.asyncDispose),
    },
    events: {
      allocUnbound: (request) => events.allocUnbound(request),
      bindInterdomain: (request) => events.bindInterdomain(request),
    },
    [Symbol.asyncDispose]: () => domain[Symbol.asyncDispose](),
  };
}

/** `resource` with a step before what `method`, which takes nothing, does. */
function afterTurn<T extends object>(runtime: Runtime, resource: T, method: keyof T): T {
  const inner = (resource[method] as () => Promise<unknown>).bind(resource);
  const value = async () => {
    await turn(runtime);
    return inner();
  };
  return Object.defineProperty(resource, method, { configurable: true, value });
}
