// What must hold between what the daemon says it holds and what the hypervisor says it does.
//
// Invariants: no guest's row goes over its budget; a row never says less than the truth (what is acquired was
// charged before, what is released is credited after); and whenever none of the daemon's calls is under way,
// the rows are the truth.

import type { Hypervisor } from '../src/hypervisor/hypervisor.ts';
import { DOM0, type DomId } from '../src/xen/ids.ts';
import type { HeldBuffer } from '../src/xen/xenbus/driver.ts';
import { type Budget, HELD_KINDS, type Held, type HeldKind } from '../src/zcopy/budget.ts';
import type { Account, Ledger } from '../src/zcopy/ledger.ts';
import type { Findings } from './findings.ts';
import type { HypervisorOracle } from './hypervisor-oracle.ts';

/** Kinds that can exceed their budget: what is in quarantine is what others hold, and stops further buffers. */
const UNBOUNDED: ReadonlySet<HeldKind> = new Set(['quarantinedPages']);
/** What xenstored holds of each guest that it serves: its ring page and the ring's port. */
const STORE_RING = { refs: 1, mappings: 1, ports: 1 } as const;

export interface LedgerOracleParts {
  readonly hypervisor: Hypervisor;
  readonly oracle: HypervisorOracle;
  readonly budget: Budget;
  readonly findings: Findings;
}

/** A guest's row, and what it said at the last check. */
interface Row {
  readonly account: Account;
  readonly held: Readonly<Held>;
}

interface Comparison {
  readonly domid: DomId;
  readonly kind: 'refs' | 'mappings';
  readonly truth: number;
  readonly row: Row | undefined;
  readonly exact: boolean;
}

export class LedgerOracle {
  readonly #parts: LedgerOracleParts;
  readonly #limits: readonly (readonly [HeldKind, number])[];
  readonly #rows = new Map<DomId, Row>();

  constructor(parts: LedgerOracleParts) {
    this.#parts = parts;
    this.#limits = HELD_KINDS.filter((kind) => !UNBOUNDED.has(kind)).map(
      (kind) => [kind, parts.budget[kind]] as const,
    );
  }

  /**
   * Compares; `quiet` says that no call of the daemon's is under way. Only to be asked while a single daemon,
   * and nothing of an earlier one, is there.
   */
  check(ledger: Ledger, { quiet }: { quiet: boolean }): void {
    this.#rows.clear();
    let ports = 0;
    for (const account of ledger.accounts) {
      const { domid, held } = account;
      this.#rows.set(domid, { account, held });
      this.#checkBudget(domid, held);
      ports += held.ports;
    }
    let served = 0;
    for (const { domid, storeRing, state } of this.#parts.hypervisor.domains) {
      if (domid === DOM0 || !storeRing) continue;
      served += 1;
      this.#checkGuest(domid, this.#rows.get(domid), quiet && state !== 'dying');
    }
    const open = this.#parts.hypervisor.domain(DOM0)!.ports.open;
    this.#parts.findings.hold(
      open <= ports + served * STORE_RING.ports,
      'ledger-differs-from-hypervisor',
      () => `${open} ports of domain 0, ${ports} of them charged, for ${served} guests`,
    );
  }

  #checkBudget(domid: number, held: Readonly<Held>): void {
    for (const [kind, allowed] of this.#limits) {
      const has = held[kind];
      if (has >= 0 && has <= allowed) continue;
      const detail = () => `domain ${domid} has ${has} ${kind}, and ${allowed} are allowed`;
      this.#parts.findings.hold(false, 'budget-exceeded', detail);
    }
  }

  /** `exact`: the row says neither less nor more than the truth. */
  #checkGuest(domid: DomId, row: Row | undefined, exact: boolean): void {
    const { grants, granted, windows } = this.#parts.oracle.tallyOf(domid);
    this.#compare({ domid, kind: 'refs', truth: grants + granted, row, exact });
    this.#compare({ domid, kind: 'mappings', truth: windows, row, exact });
  }

  #compare({ domid, kind, truth, row, exact }: Comparison): void {
    const says = row?.held[kind] ?? 0;
    // While xenstored comes to a guest or leaves it, its own page may be mapped or not.
    const most = says + STORE_RING[kind];
    const slack = exact && kind === 'refs' && row ? pagesOnTheirWay(row.account.buffers) : 0;
    const least = exact ? says - slack : 0;
    if (truth >= least && truth <= most) return;
    const detail = () => {
      const table = `${truth} in the hypervisor's tables (xenstored's own included)`;
      return `domain ${domid}: ${says} ${kind} in its row, ${table}`;
    };
    this.#parts.findings.hold(false, 'ledger-differs-from-hypervisor', detail);
  }
}

/**
 * Pages that are charged and may not be there: those of a buffer that is being made are charged beforehand, and of a
 * loan that is being ended some may be back, while the whole is charged until the last one is.
 */
function pagesOnTheirWay(buffers: readonly HeldBuffer[]): number {
  let pages = 0;
  for (const buffer of buffers) if (buffer.state !== 'live') pages += buffer.pages;
  return pages;
}
