// Pages of gntalloc that another domain may map: our view of them, and how they are given back.
//
// Invariants:
// - Our view is revoked first, access ends after it, once. A step that fails leaves the pages in use: the
//   next try goes on with that step.
// - Pages that the other domain is seen to map are not given up, unless they are disposed.
// - The farewell is said once. The kernel says it when the grants end. But `end` may have to wait for the peer
//   with that, and the peer for the farewell: so then we say it, and the kernel is told not to.
//   Should we die between the two, the peer is told twice, rather than never.

import type { Mapping } from '../posix/mapping.ts';
import type { Farewell, SharedPages } from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import type { GivenBack } from '../xen/memory.ts';
import { AccessEnd, type AccessEndParts } from './access-end.ts';

/** A farewell that the kernel says, unless it is told not to. */
export interface KeptFarewell extends Farewell {
  /** Tells the kernel not to say it; called again when it has thrown. @throws SysError */
  readonly forget: () => void;
}

export interface GntallocPagesParts extends AccessEndParts {
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly writable: boolean;
  readonly mapping: Mapping;
  readonly farewell: KeptFarewell | undefined;
}

export class GntallocPages implements SharedPages, Disposable {
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly writable: boolean;
  readonly #mapping: Mapping;
  readonly #access: AccessEnd;
  /** What the kernel will say. */
  #farewell: KeptFarewell | undefined;
  /** Whether we have said it meanwhile. */
  #said = false;

  constructor(parts: GntallocPagesParts) {
    this.domid = parts.domid;
    this.refs = parts.refs;
    this.writable = parts.writable;
    this.#mapping = parts.mapping;
    this.#farewell = parts.farewell;
    this.#access = new AccessEnd(parts);
  }

  get bytes(): Uint8Array {
    return this.#mapping.bytes;
  }

  async end(): Promise<GivenBack> {
    this.#sayFarewell();
    this.#mapping[Symbol.dispose]();
    this.#forgetFarewell();
    return this.#access.end();
  }

  [Symbol.dispose](): void {
    this.#mapping[Symbol.dispose]();
    this.#access.abandon();
    this.#farewell = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
  }

  /** Without a view it is the kernel's: the grants were about to end. */
  #sayFarewell(): void {
    if (this.#farewell === undefined || this.#mapping.closed) return;
    const { byte, channel } = this.#farewell;
    this.bytes[byte] = 0;
    channel.notify();
    this.#said = true;
  }

  #forgetFarewell(): void {
    if (!this.#said) return;
    this.#farewell?.forget();
    this.#farewell = undefined;
  }
}
