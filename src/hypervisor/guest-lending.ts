// Pages of a buffer that another domain may map, one grant each, from lending to the end of the last.
//
// Invariants: a grant that the other domain still uses is never ended and its reference not given out
// again; the buffer knows of the loan until all of its grants have ended, so its frames cannot go anywhere.

import type { LentPages } from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import type { GivenBack } from '../xen/memory.ts';
import type { GuestBuffer } from './guest-buffer.ts';
import type { GrantedPage } from './guest-grants.ts';

/** Who can end grants. */
export interface LentGrants {
  /** Ends what can be ended. @returns the pages that the other domain still maps, which stay granted */
  endLent(lent: GuestLentPages, pages: readonly GrantedPage[]): readonly GrantedPage[];
}

export interface LentPagesOptions {
  readonly grants: LentGrants;
  readonly buffer: GuestBuffer;
  readonly domid: DomId;
  readonly writable: boolean;
  /** In the order of the buffer. */
  readonly pages: readonly GrantedPage[];
}

export class GuestLentPages implements LentPages {
  readonly domid: DomId;
  readonly writable: boolean;
  readonly refs: readonly Gref[];
  readonly #grants: LentGrants;
  readonly #buffer: GuestBuffer;
  #granted: readonly GrantedPage[];

  constructor({ grants, buffer, domid, writable, pages }: LentPagesOptions) {
    this.#grants = grants;
    this.#buffer = buffer;
    this.domid = domid;
    this.writable = writable;
    this.refs = pages.map(({ ref }) => ref);
    this.#granted = pages;
    buffer.loans.add(this);
  }

  /** Pages whose grants have not ended. */
  get granted(): readonly GrantedPage[] {
    return this.#granted;
  }

  async end(): Promise<GivenBack> {
    this.endNow();
    return { heldPages: this.#granted.length, evidence: 'grant table' };
  }

  /** Ends what is not mapped. */
  endNow(): void {
    this.#granted = this.#grants.endLent(this, this.#granted);
    if (this.#granted.length === 0) this.#buffer.loans.delete(this);
  }
}
