// A guest as one of its devices gets it: whatever calls back, event channels and watches, does so in the device's
// confinement.

import type { Confinement } from '../../runtime/confinement.ts';
import type { EventChannels } from '../domain.ts';
import type { Xenstore } from '../xenstore.ts';
import type { GuestContext } from './driver.ts';

export function confinedGuest(guest: GuestContext, confinement: Confinement): GuestContext {
  const { domid, provider, grants, foreign, memory, events, store } = guest.domain;
  return {
    ...guest,
    domain: {
      domid,
      provider,
      grants,
      foreign,
      memory,
      events: confinedEvents(events, confinement),
      store: confinedStore(store, confinement),
      [Symbol.asyncDispose]: () => guest.domain[Symbol.asyncDispose](),
    },
  };
}

function confinedEvents(events: EventChannels, confinement: Confinement): EventChannels {
  return {
    allocUnbound: (request) =>
      events.allocUnbound({ ...request, handler: confinement.wrap(request.handler) }),
    bindInterdomain: (request) =>
      events.bindInterdomain({ ...request, handler: confinement.wrap(request.handler) }),
  };
}

function confinedStore(store: Xenstore, confinement: Confinement): Xenstore {
  return {
    read: (path) => store.read(path),
    directory: (path) => store.directory(path),
    write: (path, value) => store.write(path, value),
    mkdir: (path) => store.mkdir(path),
    remove: (path) => store.remove(path),
    getPermissions: (path) => store.getPermissions(path),
    setPermissions: (path, permissions) => store.setPermissions(path, permissions),
    transaction: (body) => store.transaction(body),
    watch: (path, onEvent) => store.watch(path, confinement.wrap(onEvent)),
  };
}
