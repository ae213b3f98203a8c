// What a domain has mapped of others: one entry per mapping, named by a handle (Xen's maptrack).
//
// Invariants: a handle in use names exactly one mapped grant; the table grows frame by frame to its limit
// and never further, so the mappings of one domain are bounded.

import assert from 'node:assert/strict';
import type { DomId, Gref } from '../xen/ids.ts';

/** Entries in one maptrack frame. */
export const MAPTRACK_PER_FRAME = 256;
/** gnttab_max_maptrack_frames of Xen's command line. */
export const DEFAULT_MAX_MAPTRACK_FRAMES = 1024;

export const INVALID_HANDLE = 0xffff_ffff;
const FREE = 0;
const READ_ONLY = 1;
const WRITABLE = 2;

/** What a handle stands for. */
export interface MappedGrant {
  readonly domid: DomId;
  readonly ref: Gref;
  readonly writable: boolean;
}

export class Maptrack {
  readonly limit: number;
  #used = 0;
  #kinds = new Uint8Array(0);
  #domids = new Uint16Array(0);
  #refs = new Uint32Array(0);
  /** Stack of free handles; its upper part is stale. */
  #free = new Uint32Array(0);
  #freeCount = 0;

  constructor(maxFrames: number) {
    this.limit = maxFrames * MAPTRACK_PER_FRAME;
  }

  /** Handles in use. */
  get used(): number {
    return this.#used;
  }

  /** A new handle, or INVALID_HANDLE at the limit. */
  take({ domid, ref, writable }: MappedGrant): number {
    if (this.#freeCount === 0 && !this.#grow()) return INVALID_HANDLE;
    const handle = this.#free[--this.#freeCount]!;
    this.#kinds[handle] = writable ? WRITABLE : READ_ONLY;
    this.#domids[handle] = domid;
    this.#refs[handle] = ref;
    this.#used++;
    return handle;
  }

  /** What the handle stands for, or undefined when it is not in use. */
  get(handle: number): MappedGrant | undefined {
    if (handle >= this.#kinds.length) return undefined;
    const kind = this.#kinds[handle]!;
    if (kind === FREE) return undefined;
    const domid = this.#domids[handle]! as DomId;
    return { domid, ref: this.#refs[handle]! as Gref, writable: kind === WRITABLE };
  }

  release(handle: number): void {
    if (!this.get(handle)) assert.fail(`handle ${handle} is not in use`);
    this.#kinds[handle] = FREE;
    this.#free[this.#freeCount++] = handle;
    this.#used--;
  }

  /** How many grants of each domain are mapped. */
  countByDomain(): Map<DomId, number> {
    const counts = new Map<DomId, number>();
    for (let handle = 0; handle < this.#kinds.length; handle++) {
      if (this.#kinds[handle] === FREE) continue;
      const domid = this.#domids[handle]! as DomId;
      counts.set(domid, (counts.get(domid) ?? 0) + 1);
    }
    return counts;
  }

  /** Doubles the table, in whole frames; false at the limit. */
  #grow(): boolean {
    const before = this.#kinds.length;
    const after = Math.min(this.limit, Math.max(MAPTRACK_PER_FRAME, before * 2));
    if (after === before) return false;
    this.#kinds = grown(this.#kinds, new Uint8Array(after));
    this.#domids = grown(this.#domids, new Uint16Array(after));
    this.#refs = grown(this.#refs, new Uint32Array(after));
    this.#free = new Uint32Array(after);
    for (let handle = after - 1; handle >= before; handle--) this.#free[this.#freeCount++] = handle;
    return true;
  }
}

function grown<T extends Uint8Array | Uint16Array | Uint32Array>(from: T, into: T): T {
  into.set(from);
  return into;
}
