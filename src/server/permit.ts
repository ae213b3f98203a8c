// What the bearer of a token may do: which guests there are for it, and whether it may do more than look.
//
// A rule names guests as the person who wrote it did, by name or by number, and holds for whoever has that
// name or number at the moment of asking: nothing is remembered of a guest that is gone.

import { HttpError } from './http-error.ts';

export interface PermitRule {
  /** Names (text) and domains' numbers; every guest when left out. */
  readonly guests?: readonly (string | number)[];
  /** Looking only: no input, no stopping or starting. */
  readonly viewOnly?: boolean;
}

/** What a rule goes by. */
export interface NamedGuest {
  readonly domid: number;
  readonly name: string;
}

export class Permit {
  readonly viewOnly: boolean;
  readonly #guests: ReadonlySet<string | number> | undefined;

  constructor({ guests, viewOnly = false }: PermitRule = {}) {
    this.#guests = guests && new Set(guests);
    this.viewOnly = viewOnly;
  }

  /** Whether there are only some guests for this bearer. */
  get limited(): boolean {
    return this.#guests !== undefined;
  }

  /** Whether this is less than everything. */
  get restricted(): boolean {
    return this.limited || this.viewOnly;
  }

  reaches({ domid, name }: NamedGuest): boolean {
    return this.#guests === undefined || this.#guests.has(domid) || this.#guests.has(name);
  }

  /** @throws HttpError 403 for a bearer that may only look */
  checkMayAct(): void {
    if (!this.viewOnly) return;
    throw new HttpError(403, 'this token is for looking only', { reason: 'view-only' });
  }

  /** @throws HttpError 403 for a bearer that some guests are hidden from */
  checkReachesAll(): void {
    if (!this.limited) return;
    const message = 'this needs a token that reaches every guest';
    throw new HttpError(403, message, { reason: 'limited-token' });
  }
}
