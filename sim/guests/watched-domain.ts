// A guest's domain, with an eye on what its display shares: an oracle over every pair of rings, and what the grant table
// says of a buffer's pages when they are given up. Pages that only the backend reads are those of buffers.

import { GTF_reading } from '../../src/abi/grant-table.ts';
import type { Domain, SharedPages } from '../../src/xen/domain.ts';
import { RingOracle } from '../ring-oracle.ts';
import type { Surroundings } from '../surroundings.ts';

/** Pages that a display frontend shares at a time for writing: the two of a connector's rings, and nothing else. */
const RING_PAGES = 2;

/** `onGivenUp` hears how many pages of a buffer the backend still maps at the moment in which they are given up. */
export function watchedDomain(
  { host, rings, trace, findings }: Surroundings,
  domain: Domain,
  onGivenUp: (inUse: number) => void,
): Domain {
  const { domid } = domain;
  const watchRings = (shared: SharedPages): SharedPages => {
    const ring = new RingOracle({ domid, pages: shared.bytes, trace, findings });
    rings.add(ring);
    return beforeDisposal(shared, () => rings.delete(ring));
  };
  const watchBuffer = (shared: SharedPages): SharedPages =>
    beforeDisposal(shared, () => {
      const table = host.hypervisor.domain(domid)?.grants;
      const isInUse = (ref: number) =>
        table !== undefined && (table.flagsOf(ref) & GTF_reading) !== 0;
      onGivenUp(shared.refs.filter(isInUse).length);
    });
  const share: Domain['grants']['share'] = async (request) => {
    const shared = await domain.grants.share(request);
    if (!request.writable) return watchBuffer(shared);
    return request.pages === RING_PAGES ? watchRings(shared) : shared;
  };
  const { provider, foreign, memory, events, store, grants } = domain;
  return {
    domid,
    provider,
    foreign,
    memory,
    events,
    store,
    grants: { share, lend: grants.lend },
    [Symbol.asyncDispose]: () => domain[Symbol.asyncDispose](),
  };
}

/** Acts once: what is not given up at the first try may have references of others when it is tried again. */
function beforeDisposal(shared: SharedPages, act: () => void): SharedPages {
  const release = shared[Symbol.asyncDispose].bind(shared);
  let acted = false;
  const disposed = () => {
    if (!acted) act();
    acted = true;
    return release();
  };
  return Object.defineProperty(shared, Symbol.asyncDispose, { value: disposed });
}
