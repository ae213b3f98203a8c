// The daemon's own domain with a test in between: before each call the test may look, wait, change something
// behind the daemon's back, or fail the call in the system's name.

import type { Domain } from '../../src/xen/domain.ts';
import type { DomId } from '../../src/xen/ids.ts';
import type { XenstoreAccess } from '../../src/xen/xenstore.ts';

/** What a domain can do that may fail; a transaction's accesses are asked about one by one. */
export type DomainCall =
  | 'share'
  | 'lend'
  | 'map'
  | 'export'
  | 'pool'
  | 'offer'
  | 'bind'
  | 'watch'
  | keyof XenstoreAccess;

/** Called before `call`; `subject` is the domain that it is about, or the path. */
export type Before = (call: DomainCall, subject: DomId | string) => void | Promise<void>;

export function intercepted(domain: Domain, before: Before): Domain {
  const { grants, foreign, memory, events, store } = domain;
  const ask = async <T>(call: DomainCall, subject: DomId | string, proceed: () => Promise<T>) => {
    await before(call, subject);
    return proceed();
  };
  return {
    domid: domain.domid,
    provider: domain.provider,
    grants: {
      share: (request) => ask('share', request.domid, () => grants.share(request)),
      lend: (request) => ask('lend', request.domid, () => grants.lend(request)),
    },
    foreign: {
      map: (request) => ask('map', request.domid, () => foreign.map(request)),
      export: (request) => ask('export', request.domid, () => foreign.export(request)),
    },
    memory: {
      allocate: (request) => memory.allocate(request),
      adopt: (fd) => memory.adopt(fd),
      createPool: (request) => ask('pool', request.domid, () => memory.createPool(request)),
    },
    events: {
      allocUnbound: (request) => ask('offer', request.remote, () => events.allocUnbound(request)),
      bindInterdomain: (request) =>
        ask('bind', request.remote, () => events.bindInterdomain(request)),
    },
    store: {
      ...interceptedAccess(store, before),
      transaction: (body) => store.transaction((access) => body(interceptedAccess(access, before))),
      watch: (path, onEvent) => ask('watch', path, () => store.watch(path, onEvent)),
    },
    [Symbol.asyncDispose]: () => domain[Symbol.asyncDispose](),
  };
}

function interceptedAccess(access: XenstoreAccess, before: Before): XenstoreAccess {
  const ask = async <T>(call: DomainCall, path: string, proceed: () => Promise<T>) => {
    await before(call, path);
    return proceed();
  };
  return {
    read: (path) => ask('read', path, () => access.read(path)),
    directory: (path) => ask('directory', path, () => access.directory(path)),
    write: (path, value) => ask('write', path, () => access.write(path, value)),
    mkdir: (path) => ask('mkdir', path, () => access.mkdir(path)),
    remove: (path) => ask('remove', path, () => access.remove(path)),
    getPermissions: (path) => ask('getPermissions', path, () => access.getPermissions(path)),
    setPermissions: (path, permissions) =>
      ask('setPermissions', path, () => access.setPermissions(path, permissions)),
  };
}
