// What must hold between what the daemon says it holds and what the hypervisor says it does.
//
// Invariants: no guest's row goes over its budget; a row never says less than the truth (what is acquired was
// charged before, what is released is credited after); and whenever none of the daemon's calls is under way,
// the rows are the truth.

import type { Daemon } from '../src/daemon/daemon.ts';
import type { GuestStatus } from '../src/daemon/status.ts';
import type { Hypervisor } from '../src/hypervisor/hypervisor.ts';
import { DOM0, type DomId } from '../src/xen/ids.ts';
import type { Budget } from '../src/zcopy/budget.ts';
import type { Findings } from './findings.ts';
import type { HypervisorOracle } from './hypervisor-oracle.ts';

/** Kinds that can exceed their budget: what is in quarantine is what others hold, and stops further buffers. */
const UNBOUNDED = new Set(['quarantinedPages']);
/** What xenstored holds of each guest that it serves: its ring page and the ring's port. */
const STORE_RING = { refs: 1, mappings: 1, ports: 1 } as const;

export interface LedgerOracleParts {
  readonly hypervisor: Hypervisor;
  readonly oracle: HypervisorOracle;
  readonly budget: Budget;
  readonly findings: Findings;
}

export class LedgerOracle {
  readonly #parts: LedgerOracleParts;

  constructor(parts: LedgerOracleParts) {
    this.#parts = parts;
  }

  /**
   * Compares; `quiet` says that no call of the daemon's is under way. Only to be asked while a single daemon,
   * and nothing of an earlier one, is there.
   */
  check(daemon: Daemon, { quiet }: { quiet: boolean }): void {
    const rows = new Map(daemon.status().guests.map((guest) => [guest.domid as DomId, guest]));
    let ports = 0;
    for (const [domid, { held }] of rows) {
      this.#checkBudget(domid, held);
      ports += held.ports ?? 0;
    }
    let served = 0;
    for (const { domid, storeRing, state } of this.#parts.hypervisor.domains) {
      if (domid === DOM0 || !storeRing) continue;
      served += 1;
      this.#checkGuest(domid, rows.get(domid), quiet && state !== 'dying');
    }
    const open = this.#parts.hypervisor.domain(DOM0)!.ports.open;
    this.#parts.findings.hold(
      open <= ports + served * STORE_RING.ports,
      'ledger-differs-from-hypervisor',
      () => {
        return `${open} ports of domain 0, ${ports} of them charged, for ${served} guests`;
      },
    );
  }

  #checkBudget(domid: number, held: Readonly<Record<string, number>>): void {
    for (const [kind, allowed] of Object.entries(this.#parts.budget)) {
      if (UNBOUNDED.has(kind)) continue;
      const has = held[kind] ?? 0;
      const detail = () => `domain ${domid} has ${has} ${kind}, and ${allowed} are allowed`;
      this.#parts.findings.hold(has >= 0 && has <= allowed, 'budget-exceeded', detail);
    }
  }

  /** `exact`: the row says neither less nor more than the truth. */
  #checkGuest(domid: DomId, row: GuestStatus | undefined, exact: boolean): void {
    const { oracle } = this.#parts;
    const mapped = oracle.mappedByDom0(domid);
    const truth = { refs: mapped.grants + oracle.grantedByDom0(domid), mappings: mapped.windows };
    const slack = { refs: row ? pagesOnTheirWay(row) : 0, mappings: 0 };
    for (const kind of ['refs', 'mappings'] as const) {
      const says = row?.held[kind] ?? 0;
      // While xenstored comes to a guest or leaves it, its own page may be mapped or not.
      const most = says + STORE_RING[kind];
      const least = exact ? says - slack[kind] : 0;
      const fits = truth[kind] >= least && truth[kind] <= most;
      this.#parts.findings.hold(fits, 'ledger-differs-from-hypervisor', () => {
        const table = `${truth[kind]} in the hypervisor's tables (xenstored's own included)`;
        return `domain ${domid}: ${says} ${kind} in its row, ${table}`;
      });
    }
  }
}

/**
 * Pages that are charged and may not be there: those of a buffer that is being made are charged beforehand, and of a
 * loan that is being ended some may be back, while the whole is charged until the last one is.
 */
function pagesOnTheirWay({ buffers }: GuestStatus): number {
  const moving = buffers.filter(({ state }) => state !== 'live');
  return moving.reduce((sum, { pages }) => sum + pages, 0);
}
