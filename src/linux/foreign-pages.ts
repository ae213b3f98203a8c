// Another domain's pages that gntdev shows us: a mapping, and the records that the driver keeps of it.
//
// Invariant: the mapping is revoked first and the records given back after it, once. A step that fails leaves
// the pages in use: disposing them again goes on with that step.

import type { Mapping } from '../posix/mapping.ts';
import type { ForeignMapping } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';

export interface ForeignPagesParts {
  readonly domid: DomId;
  readonly writable: boolean;
  readonly mapping: Mapping;
  /** Gives the driver's records back; called again when it has thrown. */
  readonly release: () => void;
}

export class ForeignPages implements ForeignMapping, Disposable {
  readonly domid: DomId;
  readonly writable: boolean;
  readonly #mapping: Mapping;
  readonly #release: () => void;
  #released = false;

  constructor({ domid, writable, mapping, release }: ForeignPagesParts) {
    this.domid = domid;
    this.writable = writable;
    this.#mapping = mapping;
    this.#release = release;
  }

  get pages(): number {
    return this.#mapping.pages;
  }

  get areas(): number {
    return this.#mapping.areas;
  }

  get bytes(): Uint8Array {
    return this.#mapping.bytes;
  }

  [Symbol.dispose](): void {
    if (this.#released) return;
    this.#mapping[Symbol.dispose]();
    this.#release();
    this.#released = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
  }
}
