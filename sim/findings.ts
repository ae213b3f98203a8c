// An invariant that did not hold: the finding of a simulation.

/** The names of the invariants, as they stand in reports. */
export type InvariantName =
  | 'page-readable-without-grant'
  | 'page-reused-while-mapped'
  | 'frame-counts'
  | 'view-of-closed-window'
  | 'budget-exceeded'
  | 'ledger-differs-from-hypervisor'
  | 'answered-once'
  | 'event-ids'
  | 'release-is-a-fact'
  | 'foreign-picture'
  | 'foreign-frame'
  | 'output-reads-late'
  | 'flip-completed-once'
  | 'input-of-another'
  | 'honest-guest-progress'
  | 'left-behind'
  | 'defect';

export interface Violation {
  readonly invariant: InvariantName;
  /** What was found, in words. */
  readonly detail: string;
}

/**
 * Where everybody who looks on says what does not hold. The first finding counts: what follows from it is
 * no news. Nobody throws, as the code under test would catch it.
 */
export class Findings {
  #first: Violation | undefined;

  get first(): Violation | undefined {
    return this.#first;
  }

  /** Enters a violation unless `holds`. */
  hold(holds: boolean, invariant: InvariantName, detail: () => string): void {
    if (!holds) this.#first ??= { invariant, detail: detail() };
  }
}
