// The ledger: everything that any guest makes us hold, by guest and kind, in one place, and how often it was
// refused more or made to wait. Status, metrics and the leak checks of the tests are views of it.
//
// Invariants: a row's numbers are never negative; nothing is held before its charge was accepted (the
// budget is checked before any work is done); a guest that is gone has no row, unless somebody still uses
// buffers of its: then they are in the row by name, and the row goes with the last of them.

import assert from 'node:assert/strict';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { DomId } from '../xen/ids.ts';
import type { HeldBuffer, RateKind } from '../xen/xenbus/driver.ts';
import { type Budget, HELD_KINDS, type Held, type HeldKind } from './budget.ts';

function nothing(): Held {
  return Object.fromEntries(HELD_KINDS.map((kind) => [kind, 0])) as Held;
}

/** What the caller holds; giving it back twice does nothing. */
export interface Charge extends Disposable {
  [Symbol.dispose](): void;
}

export interface AccountOptions {
  readonly domid: DomId;
  readonly name: string;
  readonly budget: Budget;
}

/** One guest's row. */
export class Account {
  readonly domid: DomId;
  #name: string;
  #budget: Budget;
  readonly #held = nothing();
  readonly #buffers = new Set<HeldBuffer>();
  readonly #refused = new Map<string, number>();
  readonly #throttled = new Map<RateKind, number>();

  constructor({ domid, name, budget }: AccountOptions) {
    this.domid = domid;
    this.#name = name;
    this.#budget = budget;
  }

  /** The guest's, for people. */
  get name(): string {
    return this.#name;
  }

  get budget(): Budget {
    return this.#budget;
  }

  /** The guest is back: what it left counts against the budget that it has now. */
  reopen({ name, budget }: AccountOptions): void {
    this.#name = name;
    this.#budget = budget;
  }

  get held(): Readonly<Held> {
    return { ...this.#held, quarantinedPages: this.#quarantinedPages };
  }

  /** The buffers that the guest makes us hold, in whatever state. */
  get buffers(): readonly HeldBuffer[] {
    return [...this.#buffers];
  }

  /** How often this guest was refused something, by reason. */
  get refused(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#refused);
  }

  /** How often this guest was made to wait, by the rate that it went beyond. */
  get throttled(): Readonly<Partial<Record<RateKind, number>>> {
    return Object.fromEntries(this.#throttled);
  }

  get empty(): boolean {
    return HELD_KINDS.every((kind) => this.#held[kind] === 0);
  }

  /**
   * Enters all of `amounts` or none of them.
   * @throws ProtocolViolation (XEN_ENOMEM, reason `over-budget-KIND`) when one would exceed the budget, or for
   *   another buffer while more pages are in quarantine than the guest may leave there
   */
  charge(amounts: Partial<Held>): Charge {
    const entries = Object.entries(amounts) as [HeldKind, number][];
    for (const [kind, amount] of entries) {
      assert(Number.isInteger(amount) && amount >= 0, `a charge of ${amount} ${kind}`);
      const wanted = this.#held[kind] + amount;
      if (wanted > this.budget[kind]) throw this.overBudget(kind, `${wanted} ${kind} wanted`);
    }
    if ((amounts.buffers ?? 0) > 0) this.#checkQuarantine();
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

  /** How much more of a kind there may be. */
  left(kind: HeldKind): number {
    return Math.max(0, this.#budget[kind] - this.held[kind]);
  }

  /** The violation by which more of a kind is refused than the budget has. */
  overBudget(kind: HeldKind, what: string): ProtocolViolation {
    const detail = `${what}, ${this.#budget[kind]} allowed for domain ${this.domid}`;
    return new ProtocolViolation(`over-budget-${kind}`, 'XEN_ENOMEM', detail);
  }

  /** Enters a buffer by name; it leaves by itself. What it holds is charged besides. */
  track(buffer: HeldBuffer): void {
    this.#buffers.add(buffer);
    void buffer.gone.then(() => this.#buffers.delete(buffer));
  }

  /** Counts a refusal under the violation's reason. */
  countRefusal(reason: string): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
  }

  countThrottle(kind: RateKind): void {
    this.#throttled.set(kind, (this.#throttled.get(kind) ?? 0) + 1);
  }

  get #quarantinedPages(): number {
    let pages = 0;
    for (const buffer of this.#buffers) if (buffer.state === 'quarantined') pages += buffer.pages;
    return pages;
  }

  #checkQuarantine(): void {
    const pages = this.#quarantinedPages;
    if (pages <= this.budget.quarantinedPages) return;
    throw this.overBudget('quarantinedPages', `${pages} pages in quarantine`);
  }

  #giveBack(kind: HeldKind, amount: number): void {
    this.#held[kind] -= amount;
    assert(this.#held[kind] >= 0, `domain ${this.domid} gave back more ${kind} than it held`);
  }
}

function rethrow(error: unknown): never {
  throw error;
}

export class Ledger {
  readonly #accounts = new Map<DomId, Account>();
  /** Rows of guests that are gone and of whose buffers something is still in use. */
  readonly #lingering = new Set<Account>();
  readonly #onLateError: (error: unknown) => void;

  /** `onLateError` is told of a row that could not be closed when nobody waited any more; else it ends the process. */
  constructor(onLateError: (error: unknown) => void = rethrow) {
    this.#onLateError = onLateError;
  }

  /** Opens the row of a guest that appeared, or goes on with the one that it left. */
  open(options: AccountOptions): Account {
    const { domid } = options;
    const left = this.#accounts.get(domid);
    if (left !== undefined) {
      assert(this.#lingering.delete(left), `domain ${domid} has a row already`);
      left.reopen(options);
      return left;
    }
    const account = new Account(options);
    this.#accounts.set(domid, account);
    return account;
  }

  /**
   * Closes the row of a guest that is gone; while buffers of it are in use, it stays until they are not.
   * @throws AssertionError when it holds something else, which stays listed and counts against the guest's budget when
   *   it comes back
   */
  close(account: Account): void {
    if (account.buffers.length > 0) {
      this.#lingering.add(account);
      this.#closeLater(account).catch(this.#onLateError);
      return;
    }
    if (!account.empty) this.#lingering.add(account);
    assert(
      account.empty,
      `domain ${account.domid} is gone and holds ${JSON.stringify(account.held)}`,
    );
    this.#accounts.delete(account.domid);
    this.#lingering.delete(account);
  }

  async #closeLater(account: Account): Promise<void> {
    await Promise.all(account.buffers.map(({ gone }) => gone));
    // Unless the guest has come back meanwhile.
    if (this.#lingering.delete(account)) this.close(account);
  }

  get accounts(): Iterable<Account> {
    return this.#accounts.values();
  }

  /** What the domain makes us hold: zeros when it has no row. */
  heldBy(domid: DomId): Readonly<Held> {
    return this.#accounts.get(domid)?.held ?? nothing();
  }
}
