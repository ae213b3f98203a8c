// A domain in which somebody is always earlier: whoever makes an event channel is signalled over it before it has
// heard that there is one. In the field that is a backend that goes by what an earlier frontend had published, and
// whose port Xen has given out again.

import type { Domain } from '../../src/xen/domain.ts';

export function eagerChannels(domain: Domain): Domain {
  const { domid, provider, grants, foreign, memory, events, store } = domain;
  return {
    domid,
    provider,
    grants,
    foreign,
    memory,
    store,
    events: {
      allocUnbound: async (request) => {
        const channel = await events.allocUnbound(request);
        await request.handler();
        return channel;
      },
      bindInterdomain: (request) => events.bindInterdomain(request),
    },
    [Symbol.asyncDispose]: () => domain[Symbol.asyncDispose](),
  };
}
