// What must hold of memory that the driver domain lends, read off the hypervisor's own tables in each state.
//
// A frame that a guest maps stays the driver domain's, and stays granted to that guest, until the guest has unmapped it;
// no frame is granted twice, to whomever. With the rows of the ledger (explored-world.ts) this says that memory reaches
// nobody else, and goes nowhere, while a guest may have it.

import { GTF_permit_access, GTF_type_mask } from '../../src/abi/grant-table.ts';
import { WORDS_PER_GRANT, wordsOf } from '../../src/hypervisor/grant-table.ts';
import type { HostedDomain } from '../../src/hypervisor/hosted-domain.ts';
import type { Hypervisor } from '../../src/hypervisor/hypervisor.ts';
import { INVALID_HANDLE } from '../../src/hypervisor/maptrack.ts';
import type { DomId } from '../../src/xen/ids.ts';

const DOMID_SHIFT = 16;

/** One entry of the lender's grant table. */
interface Loan {
  readonly to: number;
  readonly frame: number;
}

/** What the driver domain grants, by reference: nothing once it is gone. */
export function loansOf(hypervisor: Hypervisor, lender: DomId): ReadonlyMap<number, Loan> {
  const loans = new Map<number, Loan>();
  const grants = hypervisor.domain(lender)?.grants;
  if (grants === undefined) return loans;
  const words = wordsOf(grants.mapping.bytes);
  for (let ref = 0; ref < grants.entries; ref++) {
    const word = words[ref * WORDS_PER_GRANT]!;
    if ((word & GTF_type_mask) !== GTF_permit_access) continue;
    loans.set(ref, { to: word >>> DOMID_SHIFT, frame: words[ref * WORDS_PER_GRANT + 1]! });
  }
  return loans;
}

/** The rules of lending that are broken now, a line each. */
export function brokenLoans(hypervisor: Hypervisor, lender: DomId): string[] {
  const loans = loansOf(hypervisor, lender);
  const broken = [...hypervisor.domains].flatMap((guest) =>
    mappedOf(guest, lender).flatMap((mapped) =>
      brokenMapping(hypervisor, { guest, lender, loans, ...mapped }),
    ),
  );
  // The loans of a domain that died are as it left them.
  if (hypervisor.domain(lender)?.state === 'running')
    broken.push(...brokenGrants(hypervisor, lender, loans));
  return broken;
}

/** Grants of the lender's that a domain maps. */
function mappedOf(guest: HostedDomain, lender: DomId): { ref: number; frame: number }[] {
  const found: { ref: number; frame: number }[] = [];
  for (const { handles, frames } of guest.space.windows) {
    handles?.forEach((handle, page) => {
      const grant = handle === INVALID_HANDLE ? undefined : guest.maptrack.get(handle);
      if (grant?.domid === lender) found.push({ ref: grant.ref, frame: frames[page]! });
    });
  }
  return found;
}

interface LentMapping {
  readonly guest: HostedDomain;
  readonly lender: DomId;
  readonly loans: ReadonlyMap<number, Loan>;
  readonly ref: number;
  readonly frame: number;
}

function brokenMapping(
  hypervisor: Hypervisor,
  { guest, lender, loans, ref, frame }: LentMapping,
): string[] {
  const { memory } = hypervisor;
  const what = `frame ${frame}, which ${guest.name} maps,`;
  if (!memory.isOwnedBy(frame, lender)) return [`${what} went to somebody else`];
  if (hypervisor.domain(lender)?.state !== 'running') return [];
  const loan = loans.get(ref);
  const granted = loan?.to === guest.domid && loan.frame === frame;
  return [
    ...(granted ? [] : [`${what} is not granted to it any more`]),
    ...(memory.isAllocatedTo(frame, lender) ? [] : [`${what} was given back to Xen`]),
  ];
}

function brokenGrants(
  hypervisor: Hypervisor,
  lender: DomId,
  loans: ReadonlyMap<number, Loan>,
): string[] {
  const frames = [...loans.values()].map(({ frame }) => frame);
  const twice = frames.filter((frame, index) => frames.indexOf(frame) !== index);
  const gone = frames.filter((frame) => !hypervisor.memory.isAllocatedTo(frame, lender));
  return [
    ...twice.map((frame) => `frame ${frame} is granted twice`),
    ...gone.map((frame) => `frame ${frame} is granted, and was given back to Xen`),
  ];
}
