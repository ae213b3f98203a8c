// How a domain gets to xenstored: a page of its memory, granted to domain 0 by a reserved reference, and
// an event channel, both made by the domain builder before the domain runs (xen/include/public/io/xs_wire.h).

import assert from 'node:assert/strict';
import { GNTTAB_RESERVED_XENSTORE, GTF_permit_access } from '../abi/grant-table.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { Domain } from '../xen/domain.ts';
import { DOM0, type Gref } from '../xen/ids.ts';
import { XenstoreClient } from '../xen/xenstore-client.ts';
import { XenstoreRing } from '../xen/xenstore-ring.ts';
import { WORDS_PER_GRANT, wordsOf } from './grant-table.ts';
import type { GuestEvents } from './guest-events.ts';
import type { HostedDomain, StoreRing } from './hosted-domain.ts';
import { type HypercallPort, HypercallTable, type HypercallWorld } from './hypercalls.ts';
import type { Xenstored } from './xenstored/server.ts';

/** The builder's part, on the domain's behalf. @throws SysError */
export function buildStoreRing(world: HypercallWorld, domain: HostedDomain): StoreRing {
  const calls = new HypercallTable(world, domain);
  const page = calls.populate({ pages: 1 });
  const words = wordsOf(domain.grants.mapping.bytes);
  const entry = GNTTAB_RESERVED_XENSTORE * WORDS_PER_GRANT;
  words[entry + 1] = page.frames[0]!;
  Atomics.store(words, entry, GTF_permit_access | (DOM0 << 16));
  const window = domain.space.get(page.window);
  assert(window, 'a window that was just opened');
  return { window, port: calls.allocUnbound({ remote: DOM0 }) };
}

/** The guest's part: its client of xenstored. */
export function connectToStore(
  { store }: HypercallPort,
  { runtime, events }: { runtime: Runtime; events: GuestEvents },
): XenstoreClient {
  assert(store, 'domain 0 has no ring to itself');
  const ring = new XenstoreRing({
    runtime,
    page: store.page,
    side: 'guest',
    notify: () => channel.notify(),
  });
  const channel = events.adopt(store.port, () => ring.onEvent());
  return new XenstoreClient({ runtime, channel: ring });
}

export interface StoreServerOptions {
  readonly runtime: Runtime;
  /** Where xenstored runs. */
  readonly dom0: Domain;
  readonly xenstored: Xenstored;
}

/**
 * Xenstored's part: introduces a domain and serves its ring.
 * @returns what takes the domain away again: it is over, its page and port are given back
 */
export async function serveStore(
  { runtime, dom0, xenstored }: StoreServerOptions,
  { domid, storeRing }: HostedDomain,
): Promise<AsyncDisposable> {
  assert(storeRing, `domain ${domid} was built without a xenstore ring`);
  const refs = [GNTTAB_RESERVED_XENSTORE as Gref];
  const mapping = await dom0.foreign.map({ domid, refs, writable: true });
  const ring = new XenstoreRing({
    runtime,
    page: mapping.bytes,
    side: 'server',
    notify: () => channel.notify(),
  });
  const channel = await dom0.events.bindInterdomain({
    remote: domid,
    remotePort: storeRing.port,
    handler: () => ring.onEvent(),
  });
  xenstored.introduceDomain(domid);
  xenstored.accept({ channel: ring, domid });
  return {
    async [Symbol.asyncDispose]() {
      xenstored.releaseDomain(domid);
      await channel[Symbol.asyncDispose]();
      await mapping[Symbol.asyncDispose]();
    },
  };
}
