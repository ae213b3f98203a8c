// The connection to xenstored of a domain that has none: to use it is a mistake of whoever made such a world.

import type { StoreConnection } from '../src/hypervisor/guest-domain.ts';

export const NO_STORE = new Proxy({} as StoreConnection, {
  get(_, name) {
    if (name === Symbol.asyncDispose) return async () => {};
    throw new Error(`nobody talks to xenstore in this world: ${String(name)}`);
  },
});
