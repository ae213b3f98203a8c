// Other domains' grants in our address space: the map hypercall, with every operation's status looked at.
//
// Invariant: when one grant of a request cannot be mapped, all others of it are unmapped before the
// caller learns of it.

import assert from 'node:assert/strict';
import { GNTST_okay, gntstName } from '../abi/grant-table.ts';
import {
  type ForeignMapping,
  type ForeignMemory,
  GrantMapError,
  type MapRequest,
} from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import type { HypercallPort, WindowRef } from './hypercalls.ts';

export class GuestForeign implements ForeignMemory {
  readonly #port: HypercallPort;
  readonly #mappings = new Set<GuestForeignMapping>();
  #stopped = false;

  constructor(port: HypercallPort) {
    this.#port = port;
  }

  async map({ domid, refs, writable }: MapRequest): Promise<ForeignMapping> {
    assert(refs.length > 0, 'a mapping of no grants');
    const call = { domid, refs: Uint32Array.from(refs), writable };
    const mapped = await this.#port.call('mapGrants', call);
    const index = mapped.statuses.findIndex((status) => status !== GNTST_okay);
    if (index >= 0) {
      await this.#port.call('unmapGrants', { window: mapped.window });
      const status = gntstName(mapped.statuses[index]!);
      throw new GrantMapError({ index, ref: refs[index]!, status });
    }
    const bytes = this.#port.view(mapped);
    const mapping = new GuestForeignMapping(this, { domid, writable, bytes, window: mapped });
    this.#mappings.add(mapping);
    return mapping;
  }

  /** Unmaps a mapping of ours. */
  async unmap(mapping: GuestForeignMapping, { window }: WindowRef): Promise<void> {
    if (!this.#mappings.delete(mapping) || this.#stopped) return;
    const statuses = await this.#port.call('unmapGrants', { window });
    assert(
      statuses.every((status) => status === GNTST_okay),
      'a grant that we mapped was not mapped',
    );
  }

  async close(): Promise<void> {
    for (const mapping of [...this.#mappings].reverse()) await mapping[Symbol.asyncDispose]();
  }

  /** The domain is over: the hypervisor has unmapped everything. */
  stop(): void {
    this.#stopped = true;
    this.#mappings.clear();
  }
}

interface MappedWindow {
  readonly domid: DomId;
  readonly writable: boolean;
  readonly bytes: Uint8Array;
  readonly window: WindowRef;
}

class GuestForeignMapping implements ForeignMapping {
  readonly domid: DomId;
  readonly pages: number;
  readonly writable: boolean;
  readonly #foreign: GuestForeign;
  readonly #window: WindowRef;
  #bytes: Uint8Array | undefined;
  #unmapped: Promise<void> | undefined;

  constructor(foreign: GuestForeign, { domid, writable, bytes, window }: MappedWindow) {
    this.#foreign = foreign;
    this.domid = domid;
    this.pages = window.pages;
    this.writable = writable;
    this.#window = window;
    this.#bytes = bytes;
  }

  get bytes(): Uint8Array {
    assert(this.#bytes, 'use of an unmapped mapping');
    return this.#bytes;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#bytes = undefined;
    this.#unmapped ??= this.#foreign.unmap(this, this.#window);
    return this.#unmapped;
  }
}
