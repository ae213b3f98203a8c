// The ledger: everything that any guest makes us hold, by guest and kind, in one place. Status, metrics
// and the leak checks of the tests are views of it.
//
// Invariants: a row's numbers are never negative; nothing is held before its charge was accepted (the
// budget is checked before any work is done); a guest that is gone has a row of zeros.

import assert from 'node:assert/strict';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { DomId } from '../xen/ids.ts';

/** The kinds of things that are counted, as the status API spells them. */
export const HELD_KINDS = [
  'pages',
  'refs',
  'mappings',
  'ports',
  'watches',
  'buffers',
  'framebuffers',
  'quarantinedPages',
] as const;

export type HeldKind = (typeof HELD_KINDS)[number];
export type Held = Record<HeldKind, number>;

/** How much of each kind one guest may make us hold. */
export type Budget = Held;

/**
 * Room for four 3840x2160 buffers at 32 bits per pixel (8100 pages each) with their page directories and
 * rings, and for a person's number of connectors.
 */
export const DEFAULT_BUDGET: Budget = {
  pages: 4 * 8100 + 256,
  refs: 4 * 8100 + 256,
  mappings: 256,
  ports: 32,
  watches: 32,
  buffers: 64,
  framebuffers: 128,
  quarantinedPages: 4 * 8100,
};

function nothing(): Held {
  return Object.fromEntries(HELD_KINDS.map((kind) => [kind, 0])) as Held;
}

/** What the caller holds; giving it back twice does nothing. */
export interface Charge extends Disposable {
  [Symbol.dispose](): void;
}

/** One guest's row. */
export class Account {
  readonly domid: DomId;
  readonly budget: Budget;
  readonly #held = nothing();
  readonly #refused = new Map<string, number>();

  constructor(domid: DomId, budget: Budget) {
    this.domid = domid;
    this.budget = budget;
  }

  get held(): Readonly<Held> {
    return this.#held;
  }

  /** How often this guest was refused something, by reason. */
  get refused(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#refused);
  }

  get empty(): boolean {
    return HELD_KINDS.every((kind) => this.#held[kind] === 0);
  }

  /**
   * Enters all of `amounts` or none of them.
   * @throws ProtocolViolation (XEN_ENOMEM, reason `over-budget-KIND`) when one would exceed the budget
   */
  charge(amounts: Partial<Held>): Charge {
    const entries = Object.entries(amounts) as [HeldKind, number][];
    for (const [kind, amount] of entries) {
      assert(Number.isInteger(amount) && amount >= 0, `a charge of ${amount} ${kind}`);
      const wanted = this.#held[kind] + amount;
      if (wanted <= this.budget[kind]) continue;
      const detail = `${wanted} ${kind} wanted, ${this.budget[kind]} allowed for domain ${this.domid}`;
      throw new ProtocolViolation(`over-budget-${kind}`, 'XEN_ENOMEM', detail);
    }
    for (const [kind, amount] of entries) this.#held[kind] += amount;
    let open = true;
    return {
      [Symbol.dispose]: () => {
        if (!open) return;
        open = false;
        for (const [kind, amount] of entries) this.#giveBack(kind, amount);
      },
    };
  }

  /** Counts a refusal under the violation's reason. */
  countRefusal(reason: string): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
  }

  #giveBack(kind: HeldKind, amount: number): void {
    this.#held[kind] -= amount;
    assert(this.#held[kind] >= 0, `domain ${this.domid} gave back more ${kind} than it held`);
  }
}

export class Ledger {
  readonly #accounts = new Map<DomId, Account>();

  /** Opens the row of a guest that appeared. */
  open(domid: DomId, budget: Budget): Account {
    assert(!this.#accounts.has(domid), `domain ${domid} has a row already`);
    const account = new Account(domid, budget);
    this.#accounts.set(domid, account);
    return account;
  }

  /** Closes the row of a guest that is gone. @throws AssertionError when it still holds something */
  close(account: Account): void {
    assert(
      account.empty,
      `domain ${account.domid} is gone and holds ${JSON.stringify(account.held)}`,
    );
    this.#accounts.delete(account.domid);
  }

  get accounts(): Iterable<Account> {
    return this.#accounts.values();
  }

  /** What the domain makes us hold: zeros when it has no row. */
  heldBy(domid: DomId): Readonly<Held> {
    return this.#accounts.get(domid)?.held ?? nothing();
  }
}
