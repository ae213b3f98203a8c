// A guest as one of its devices gets it: whatever calls back, event channels and watches, does so in the device's
// confinement.

import type { Confinement } from '../../runtime/confinement.ts';
import type { GuestContext } from './driver.ts';

export function confinedGuest(guest: GuestContext, confinement: Confinement): GuestContext {
  const { domid, grants, foreign, memory, events, store } = guest.domain;
  return {
    ...guest,
    domain: {
      domid,
      grants,
      foreign,
      memory,
      events: {
        bindInterdomain: (request) =>
          events.bindInterdomain({ ...request, handler: confinement.wrap(request.handler) }),
      },
      store: {
        read: (path) => store.read(path),
        watch: (path, onEvent) => store.watch(path, confinement.wrap(onEvent)),
      },
    },
  };
}
