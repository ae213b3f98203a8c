// What must hold of a guest's row in the ledger: it never says less than the hypervisor does, and while no call of the
// backend is under way it says just that, by number and by the names of buffers, those in quarantine included.

import type { HeldBuffer } from '../../src/xen/xenbus/driver.ts';
import type { Account } from '../../src/zcopy/ledger.ts';

/** What the hypervisor says. */
export interface RowTruth {
  /** Pages of the guest that the backend maps. */
  readonly mappedPages: number;
  /** Pages of the backend that the guest may map. */
  readonly lentPages: number;
  /** Whether no call is under way. */
  readonly exact: boolean;
}

/** What is wrong with a row, a line each. */
export function wrongRow(row: Account, { mappedPages, lentPages, exact }: RowTruth): string[] {
  const { name, held, buffers } = row;
  const all = mappedPages + lentPages;
  const named = buffers.reduce((sum, buffer) => sum + lentBy(buffer), 0);
  const wrong: string[] = [];
  if (all > held.pages || (exact && all < held.pages)) {
    wrong.push(`${all} pages are mapped or lent, ${held.pages} are in the row of ${name}`);
  }
  if (lentPages > held.poolPages || (exact && lentPages < held.poolPages)) {
    wrong.push(
      `${lentPages} pages are lent, ${held.poolPages} of the pool are in the row of ${name}`,
    );
  }
  if (exact && named !== lentPages) {
    wrong.push(`${lentPages} pages are lent, ${named} by the buffers that ${name} has`);
  }
  return wrong;
}

/** Pages of ours that a buffer stands for. */
function lentBy({ direction, pages }: HeldBuffer): number {
  return direction === 'to-guest' ? pages : 0;
}
