// The hypervisor's side of one domain's grant table, version 1 (xen/include/public/grant_table.h): the
// entries are pages that the domain writes, so each is read once, checked on that copy, and claimed by
// compare-and-swap; what was found is kept in the active entry, which the domain cannot reach.
//
// Invariants:
// - While an entry is pinned, GTF_reading is set in it, and GTF_writing when somebody maps it writable.
// - Frame and domain of a pinned entry come from the active entry only (XSA-500), whatever the domain
//   makes of its own copy meanwhile.
// - Every pin holds one reference of the frame; a pin count never exceeds 128 (8-bit fields in Xen).

import assert from 'node:assert/strict';
import {
  GNTST_bad_gntref,
  GNTST_bad_page,
  GNTST_general_error,
  GNTST_okay,
  GNTTAB_NR_RESERVED_ENTRIES,
  GTF_permit_access,
  GTF_reading,
  GTF_readonly,
  GTF_sub_page,
  GTF_type_mask,
  GTF_writing,
  grantEntryV1,
} from '../abi/grant-table.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import { DOMID_XEN } from '../abi/xen.ts';
import { Mapping } from '../posix/mapping.ts';
import { SysError } from '../runtime/errors.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import type { MachineMemory } from './machine-memory.ts';

/** Entries in one page of a grant table. */
export const GRANTS_PER_FRAME = PAGE_SIZE / grantEntryV1.size;
/** gnttab_max_frames of Xen's command line. */
export const DEFAULT_MAX_GRANT_FRAMES = 64;

/** Pins of one kind of one entry beyond which the next is refused. */
const PIN_LIMIT = 128;
/** Times that an entry may change under the compare-and-swap, so that no guest can hold us up. */
const MAX_CAS_TRIES = 5;

/** 32-bit words of one entry: flags and domid in the first, the frame in the second. */
export const WORDS_PER_GRANT = grantEntryV1.size / 4;
const DOMID_SHIFT = 16;
const FLAGS_MASK = 0xffff;

/** What a mapping domain asks of an entry. */
export interface PinRequest {
  readonly ref: Gref;
  /** The domain that maps. */
  readonly by: DomId;
  readonly writable: boolean;
}

export class GrantTable implements Disposable {
  readonly #memory: MachineMemory;
  readonly #owner: DomId;
  readonly #maxFrames: number;
  readonly #mapping: Mapping;
  readonly #words: Uint32Array;
  readonly #frames: number[] = [];
  /** The active entries. */
  #readers = new Uint8Array(0);
  #writers = new Uint8Array(0);
  #pinnedFrame = new Uint32Array(0);
  #pinnedBy = new Uint16Array(0);
  #pinnedEntries = 0;

  /** A table of one frame. @throws SysError */
  constructor({ memory, owner, maxFrames }: GrantTableOptions) {
    this.#memory = memory;
    this.#owner = owner;
    this.#maxFrames = maxFrames;
    this.#mapping = new Mapping(maxFrames);
    this.#words = wordsOf(this.#mapping.bytes);
    if (this.grow(1)) return;
    this.#mapping[Symbol.dispose]();
    const context = `a grant table for domain ${owner}`;
    throw new SysError({ call: 'domctl createdomain', errnoName: 'ENOMEM', context });
  }

  /** The table as its domain sees it; pages beyond the table's present size must not be touched. */
  get mapping(): Mapping {
    return this.#mapping;
  }

  /** Where the table is in the machine, in the order of its pages. */
  get frames(): Uint32Array {
    return Uint32Array.from(this.#frames);
  }

  get entries(): number {
    return this.#frames.length * GRANTS_PER_FRAME;
  }

  /** The first word of an entry as its domain and Xen have it now: flags, and the domid in the upper half. */
  flagsOf(ref: number): number {
    return Atomics.load(this.#words, ref * WORDS_PER_GRANT);
  }

  /** Entries that somebody maps now. */
  get pinnedEntries(): number {
    return this.#pinnedEntries;
  }

  /** Entries that permit access; the toolstack's excepted. */
  get givenEntries(): number {
    let given = 0;
    for (let ref = GNTTAB_NR_RESERVED_ENTRIES; ref < this.entries; ref++) {
      if ((this.#words[ref * WORDS_PER_GRANT]! & GTF_type_mask) === GTF_permit_access) given++;
    }
    return given;
  }

  /** GNTTABOP_setup_table: makes the table `frames` frames long, if it is shorter; false when it may not. */
  grow(frames: number): boolean {
    const missing = frames - this.#frames.length;
    if (frames > this.#maxFrames) return false;
    if (missing <= 0) return true;
    const added = this.#memory.allocate(DOMID_XEN, missing);
    if (!added) return false;
    this.#show(added);
    this.#frames.push(...added);
    this.#readers = grown(this.#readers, new Uint8Array(this.entries));
    this.#writers = grown(this.#writers, new Uint8Array(this.entries));
    this.#pinnedFrame = grown(this.#pinnedFrame, new Uint32Array(this.entries));
    this.#pinnedBy = grown(this.#pinnedBy, new Uint16Array(this.entries));
    return true;
  }

  /**
   * Checks an entry and pins it: the frame has one more reference.
   * @returns the frame (never 0), or a negative GNTST_* status with nothing changed
   */
  pin(request: PinRequest): number {
    const { ref, by, writable } = request;
    if (ref >= this.entries) return GNTST_bad_gntref;
    const pinned = this.#isPinned(ref);
    const counts = writable ? this.#writers : this.#readers;
    if (pinned && (this.#pinnedBy[ref] !== by || counts[ref]! >= PIN_LIMIT)) {
      return GNTST_general_error;
    }
    if (!pinned || (writable && this.#writers[ref] === 0)) {
      const status = this.#claim(request, pinned);
      if (status !== GNTST_okay) return status;
    }
    if (!pinned && !this.#activate(request)) return GNTST_bad_page;
    counts[ref]!++;
    const frame = this.#pinnedFrame[ref]!;
    this.#memory.reference(frame);
    return frame;
  }

  /** Undoes one pin. @returns the frame, whose reference the caller gives back */
  unpin({ ref, writable }: { ref: Gref; writable: boolean }): number {
    const counts = writable ? this.#writers : this.#readers;
    assert(counts[ref]! > 0, `entry ${ref} is unpinned too often`);
    counts[ref]!--;
    this.#clearUnusedFlags(ref);
    if (!this.#isPinned(ref)) this.#pinnedEntries--;
    return this.#pinnedFrame[ref]!;
  }

  [Symbol.dispose](): void {
    assert.equal(this.#pinnedEntries, 0, 'a grant table goes away while entries are mapped');
    this.#mapping[Symbol.dispose]();
    this.#memory.relinquish(DOMID_XEN, Uint32Array.from(this.#frames.splice(0)));
  }

  /** Shows new pages at the table's end. @throws SysError, with the pages given back */
  #show(added: Uint32Array): void {
    try {
      this.#memory.show(this.#mapping, added, { atPage: this.#frames.length, writable: true });
    } catch (error) {
      this.#memory.relinquish(DOMID_XEN, added);
      throw error;
    }
  }

  #isPinned(ref: number): boolean {
    return this.#readers[ref]! + this.#writers[ref]! > 0;
  }

  /** Sets GTF_reading (and GTF_writing) in the entry, if it permits what is asked. @returns GNTST_* */
  #claim({ ref, by, writable }: PinRequest, pinned: boolean): number {
    const word = ref * WORDS_PER_GRANT;
    const permitted = GTF_permit_access | (by << DOMID_SHIFT);
    const mask = (FLAGS_MASK << DOMID_SHIFT) | GTF_type_mask | GTF_sub_page;
    const claimed = GTF_reading | (writable ? GTF_writing : 0);
    let seen = Atomics.load(this.#words, word);
    for (let attempt = 0; attempt < MAX_CAS_TRIES; attempt++) {
      if (!pinned && (seen & mask) !== (permitted & mask)) return GNTST_general_error;
      if (writable && (seen & GTF_readonly) !== 0) return GNTST_general_error;
      const before = Atomics.compareExchange(this.#words, word, seen, (seen | claimed) >>> 0);
      if (before === seen) return GNTST_okay;
      seen = before;
    }
    return GNTST_general_error;
  }

  /** Fills the active entry from a claimed one; false, with the claim undone, when the frame is not its owner's. */
  #activate({ ref, by }: PinRequest): boolean {
    const frame = Atomics.load(this.#words, ref * WORDS_PER_GRANT + 1);
    if (!this.#memory.isOwnedBy(frame, this.#owner)) {
      this.#clearUnusedFlags(ref);
      return false;
    }
    this.#pinnedFrame[ref] = frame;
    this.#pinnedBy[ref] = by;
    this.#pinnedEntries++;
    return true;
  }

  /** Clears the bits that no pin stands behind. */
  #clearUnusedFlags(ref: number): void {
    const unused =
      (this.#writers[ref] === 0 ? GTF_writing : 0) | (this.#isPinned(ref) ? 0 : GTF_reading);
    if (unused !== 0) Atomics.and(this.#words, ref * WORDS_PER_GRANT, ~unused >>> 0);
  }
}

export interface GrantTableOptions {
  readonly memory: MachineMemory;
  /** Whose frames the entries may name. */
  readonly owner: DomId;
  readonly maxFrames: number;
}

/** A grant table's bytes as 32-bit words, for Atomics. */
export function wordsOf(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

function grown<T extends Uint8Array | Uint16Array | Uint32Array>(from: T, into: T): T {
  into.set(from);
  return into;
}
