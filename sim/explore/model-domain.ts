// Domain 0 as small as the exploration needs it: grants of guests that it maps, pages that it lends, in plain memory;
// every call is a step that is chosen.
//
// It keeps the truth that the code under test is compared with: who maps what, and what is lent and not back.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import {
  type Domain,
  type ForeignMapping,
  GrantMapError,
  type LentPages,
  type MapRequest,
} from '../../src/xen/domain.ts';
import { DOM0, type DomId, type Gref } from '../../src/xen/ids.ts';
import type { LocalBuffer } from '../../src/xen/memory.ts';
import { unsupported } from '../../src/xen/unsupported.ts';
import type { Xenstore } from '../../src/xen/xenstore.ts';
import type { ChoiceRuntime } from './choices.ts';

/** A page of a guest's, or of ours. */
export interface Page {
  readonly bytes: Uint8Array;
  /** Who maps it that does not own it. */
  mappings: number;
}

export function newPage(): Page {
  return { bytes: new Uint8Array(PAGE_SIZE), mappings: 0 };
}

/** What a guest grants, by reference. */
export type GrantTable = Map<Gref, Page>;

export class ModelDomain implements Domain {
  readonly domid = DOM0;
  readonly provider = 'hypervisor';
  readonly store = {} as Xenstore;
  /** Calls a loan over whoever maps it: a defect, for those who test the exploration. */
  trustsTheGuest = false;
  /** What was done that must not be. */
  broken: string | undefined;
  /** By guest. */
  readonly tables = new Map<DomId, GrantTable>();
  /** Pages that are lent, by the reference that the guest has. */
  readonly lent = new Map<Gref, Page>();
  readonly #runtime: ChoiceRuntime;
  #nextRef = 1000;

  constructor(runtime: ChoiceRuntime) {
    this.#runtime = runtime;
  }

  readonly foreign: Domain['foreign'] = {
    map: (request) => this.#map(request),
    export: async () => {
      throw unsupported('export', 'no dma-bufs here');
    },
  };

  readonly grants: Domain['grants'] = {
    share: async () => assert.fail('the backend of a display shares nothing'),
    lend: async ({ domid, buffer, writable }) => {
      await this.#runtime.step(`lend to ${domid}`);
      return this.#lend(domid, buffer as ModelBuffer, writable);
    },
  };

  readonly memory: Domain['memory'] = {
    createPool: async ({ domid, pages }) => {
      await this.#runtime.step(`pool of ${domid}`);
      let free = pages;
      return {
        pages,
        get freePages() {
          return free;
        },
        allocate: async (count) => {
          free -= count;
          return this.#buffer(count, () => {
            free += count;
          });
        },
        [Symbol.asyncDispose]: async () => {},
      };
    },
    allocate: async ({ pages }) => this.#buffer(pages, () => {}),
    adopt: async () => assert.fail('nothing is adopted'),
  };

  readonly events: Domain['events'] = {
    allocUnbound: async () => assert.fail('backends bind'),
    bindInterdomain: async ({ remote, remotePort, handler }) => {
      const channel = {
        port: remotePort,
        notify: () => {},
        [Symbol.asyncDispose]: async () => void this.handlers.delete(`${remote}/${remotePort}`),
      };
      this.handlers.set(`${remote}/${remotePort}`, () => void handler());
      return channel;
    },
  };

  /** Of the bound ports, by domain and port. */
  readonly handlers = new Map<string, () => void>();

  async [Symbol.asyncDispose](): Promise<void> {}

  async #map({ domid, refs, writable }: MapRequest): Promise<ForeignMapping> {
    const what = `${refs.join(',')} of ${domid}`;
    await this.#runtime.step(`map ${what}`);
    const pages = refs.map((ref, index) => {
      const page = this.tables.get(domid)?.get(ref);
      if (!page) throw new GrantMapError({ index, ref, status: 'GNTST_bad_gntref' });
      return page;
    });
    for (const page of pages) page.mappings += 1;
    let mapped = true;
    return {
      domid,
      pages: pages.length,
      writable,
      get bytes() {
        assert(mapped, 'use of an unmapped mapping');
        return pages[0]!.bytes;
      },
      [Symbol.asyncDispose]: async () => {
        await this.#runtime.step(`unmap ${what}`);
        for (const page of pages) page.mappings -= Number(mapped);
        mapped = false;
      },
    };
  }

  #buffer(pages: number, giveBack: () => void): ModelBuffer {
    const onMapped = () => {
      this.broken = 'memory goes back while a guest maps it';
    };
    return new ModelBuffer({ pages, giveBack, onMapped });
  }

  #lend(domid: DomId, buffer: ModelBuffer, writable: boolean): LentPages {
    const refs = buffer.own.map((page) => {
      const ref = this.#nextRef++ as Gref;
      this.lent.set(ref, page);
      return ref;
    });
    const end = () => {
      const mapped = buffer.own.filter(({ mappings }) => mappings > 0).length;
      const held = this.trustsTheGuest ? 0 : mapped;
      if (held === 0) for (const ref of refs) this.lent.delete(ref);
      return { heldPages: held, evidence: 'grant table' };
    };
    return { domid, writable, refs, end: async () => end() };
  }
}

interface BufferParts {
  readonly pages: number;
  readonly giveBack: () => void;
  /** It was freed while somebody else maps it. */
  readonly onMapped: () => void;
}

class ModelBuffer implements LocalBuffer {
  readonly contiguity = { kind: 'none', proof: 'a model' } as const;
  readonly fd = undefined;
  readonly own: readonly Page[];
  readonly #parts: BufferParts;
  #freed = false;

  constructor(parts: BufferParts) {
    this.own = Array.from({ length: parts.pages }, newPage);
    this.#parts = parts;
  }

  get pages(): number {
    return this.own.length;
  }

  get bytes(): Uint8Array {
    assert(!this.#freed, 'use of a buffer that was freed');
    return this.own[0]!.bytes;
  }

  async free() {
    if (this.own.some(({ mappings }) => mappings > 0)) this.#parts.onMapped();
    if (!this.#freed) this.#parts.giveBack();
    this.#freed = true;
    return { heldPages: 0, evidence: 'a model' };
  }
}
