// Pages that a device file shows us, granted by another domain or to it: a mapping and the record that
// the driver keeps of it.
//
// Invariant: the mapping is revoked first and the record given back after it, once.

import type { Mapping } from '../posix/mapping.ts';
import type { ForeignMapping, SharedPages } from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import { attemptAll } from './attempt-all.ts';

export interface DevicePagesParts {
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly writable: boolean;
  readonly mapping: Mapping;
  /** Gives the driver's record back. */
  readonly release: () => void;
}

export class DevicePages implements ForeignMapping, SharedPages, Disposable {
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly writable: boolean;
  readonly #mapping: Mapping;
  readonly #release: () => void;

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
    if (this.#mapping.closed) return;
    this.#mapping[Symbol.dispose]();
    this.#release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
  }
}

/** The pages of one open device file that are in use. */
export class LivePages implements Disposable {
  readonly #pages = new Set<DevicePages>();

  /** Makes pages that are known here until they are disposed. */
  add({ release, ...parts }: DevicePagesParts): DevicePages {
    const pages = new DevicePages({
      ...parts,
      release: () => {
        this.#pages.delete(pages);
        release();
      },
    });
    this.#pages.add(pages);
    return pages;
  }

  /** Disposes all of them, even when some fail. @throws AggregateError */
  [Symbol.dispose](): void {
    attemptAll(this.#pages, (pages) => pages[Symbol.dispose](), 'giving back pages of a device');
  }
}
