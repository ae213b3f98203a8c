// Pages that a device file shows us, granted by another domain or to it: a mapping and the record that
// the driver keeps of it.
//
// Invariant: the mapping is revoked first and the record given back after it, once. A step that fails leaves
// the pages in use: disposing them again goes on with that step.

import type { Mapping } from '../posix/mapping.ts';
import type { ForeignMapping, SharedPages } from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import type { GivenBack } from '../xen/memory.ts';
import { attemptAll } from './attempt-all.ts';

export interface DevicePagesParts {
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly writable: boolean;
  readonly mapping: Mapping;
  /** Gives the driver's record back; called again when it has thrown. */
  readonly release: () => void;
}

export class DevicePages implements ForeignMapping, SharedPages, Disposable {
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly writable: boolean;
  readonly #mapping: Mapping;
  readonly #release: () => void;
  #released = false;

  constructor({ domid, refs, writable, mapping, release }: DevicePagesParts) {
    this.domid = domid;
    this.refs = refs;
    this.writable = writable;
    this.#mapping = mapping;
    this.#release = release;
  }

  get pages(): number {
    return this.refs.length;
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

  async end(): Promise<GivenBack> {
    this[Symbol.dispose]();
    return { heldPages: 0, evidence: 'driver' };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
  }
}

/** The pages of one open device file that are in use. */
export class LivePages implements Disposable {
  readonly #pages = new Set<DevicePages>();
  #over = false;

  /** Makes pages that are known here until they are disposed. */
  add({ release, ...parts }: DevicePagesParts): DevicePages {
    const pages = new DevicePages({
      ...parts,
      release: () => {
        if (!this.#over) release();
        this.#pages.delete(pages);
      },
    });
    this.#pages.add(pages);
    return pages;
  }

  /**
   * Disposes all of them, even when some fail. The device is closed next, which drops what records are left:
   * pages that are disposed later have none. @throws what failed
   */
  [Symbol.dispose](): void {
    try {
      attemptAll(this.#pages, (pages) => pages[Symbol.dispose](), 'giving back pages of a device');
    } finally {
      this.#over = true;
    }
  }
}
