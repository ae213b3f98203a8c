// A stretch of this process's address space that shows pages of files (memfds, device memory), as one
// contiguous view however scattered the pages are.
//
// Invariants (law 6: JavaScript never sees freed memory):
// - Disposing puts private zero pages over the range at once: a view that some closure still holds then
//   reads zeros, and what it writes reaches nobody.
// - The addresses go back to the system only after the garbage collector has seen that no view exists.
// - A read-only mapping must not be written through its view: the processor would stop the process.
// - Placing may fail and leave a hole in our addresses, into which another thread's memory may fall. The
//   hole is taken back at once, unless something is there: then that part is neither shown, nor revoked,
//   nor given back any more, as it may be another's. (Our own reservation, where it stayed, looks just
//   so: its addresses are lost then, and no memory.)

import assert from 'node:assert/strict';
import { SysError } from '../runtime/errors.ts';
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  mmap,
  munmap,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
  viewOf,
} from './libc.ts';
import { giveBackAreas, takeArea } from './map-areas.ts';

export const PAGE_SIZE = 4096;

/** The kernel's bound on mappings of one process (vm.max_map_count) is what large scattered buffers meet. */
const MAP_COUNT_REMEDY = 'raise vm.max_map_count (sysctl) or free memory';

/** Where in a file the pages are. */
export interface FileStretch {
  readonly fd: number;
  /** Byte offset in the file; a multiple of the page size. */
  readonly offset: number;
  readonly writable: boolean;
}

/** Which pages of which file to show where in a mapping; all counts are pages. */
export interface Placement extends FileStretch {
  /** First page of the mapping to cover. */
  readonly atPage: number;
  readonly pages: number;
}

interface AddressRange {
  readonly address: bigint;
  readonly length: number;
}

/** The addresses of one mapping, as far as they are ours, and the entries that they take in the memory map. */
interface Addresses {
  ranges: readonly AddressRange[];
  areas: number;
}

/** Told of addresses that nobody can reach any more. */
const unreachable = new FinalizationRegistry<Addresses>(({ ranges, areas }) => {
  for (const { address, length } of ranges) {
    munmap(address, length, { context: 'giving back the addresses of a closed mapping' });
  }
  giveBackAreas(areas);
});

function protection(writable: boolean): number {
  return writable ? PROT_READ | PROT_WRITE : PROT_READ;
}

function reserve(length: number): bigint {
  return mmap({
    address: 0n,
    length,
    prot: PROT_NONE,
    flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
    fd: -1,
    offset: 0,
    context: `reserving addresses for ${length / PAGE_SIZE} pages`,
  });
}

/** Reserves addresses that a failed call may have left free. @returns whether they are ours again */
function retake({ address, length }: AddressRange): boolean {
  try {
    const taken = mmap({
      address,
      length,
      prot: PROT_NONE,
      flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
      fd: -1,
      offset: 0,
      context: `taking ${length / PAGE_SIZE} pages of addresses back`,
    });
    // Kernels before 4.17 take the address for a wish.
    if (taken !== address) munmap(taken, length, { context: 'giving back a wrong place' });
    return taken === address;
  } catch (error) {
    if (error instanceof SysError) return false;
    throw error;
  }
}

/** `ranges` without `lost`, which lies within one of them. */
function without(ranges: readonly AddressRange[], lost: AddressRange): AddressRange[] {
  const lostEnd = lost.address + BigInt(lost.length);
  return ranges.flatMap((range) => {
    const { address, length } = range;
    const end = address + BigInt(length);
    if (lostEnd <= address || lost.address >= end) return [range];
    const before = { address, length: Number(lost.address - address) };
    const behind = { address: lostEnd, length: Number(end - lostEnd) };
    return [before, behind].filter((part) => part.length > 0);
  });
}

function mapFile(length: number, { fd, offset, writable }: FileStretch): bigint {
  return mmap({
    address: 0n,
    length,
    prot: protection(writable),
    flags: MAP_SHARED,
    fd,
    offset,
    context: `mapping ${length / PAGE_SIZE} pages`,
    remedy: MAP_COUNT_REMEDY,
  });
}

export class Mapping implements Disposable {
  readonly address: bigint;
  readonly pages: number;
  /** One range, unless parts were lost. What `unreachable` has. */
  readonly #addresses: Addresses;
  /** Made when first asked for: V8 counts a view's size as memory of its own and collects the more often. */
  #bytes: Uint8Array | undefined;
  #open = true;

  /**
   * Shows `pages` pages of a file or, without one, reserves addresses for that many pages, which nothing
   * may touch before they are placed. Where mapping can fail at a guest's will (grants), name the file
   * here if one will do: a failed `place` may cost addresses. @throws SysError
   */
  constructor(pages: number, file?: FileStretch) {
    assert(Number.isInteger(pages) && pages > 0, `a mapping of ${pages} pages`);
    this.pages = pages;
    const length = pages * PAGE_SIZE;
    takeArea(`mapping ${pages} pages`);
    try {
      this.address = file === undefined ? reserve(length) : mapFile(length, file);
    } catch (error) {
      giveBackAreas(1);
      throw error;
    }
    this.#addresses = { ranges: [{ address: this.address, length }], areas: 1 };
    unreachable.register(this, this.#addresses, this);
  }

  /** Entries of the process's memory map that it takes: one, and one more for each stretch that was placed. */
  get areas(): number {
    return this.#addresses.areas;
  }

  /** The mapped bytes. @throws AssertionError after dispose: using a closed mapping is our bug */
  get bytes(): Uint8Array {
    assert(this.#open, 'use of a closed mapping');
    this.#bytes ??= this.#view();
    return this.#bytes;
  }

  get closed(): boolean {
    return !this.#open;
  }

  /** Shows pages of a file in a part of the mapping, which is of no use when that fails. @throws SysError */
  place({ fd, offset, atPage, pages, writable }: Placement): void {
    assert(this.#open && atPage >= 0 && pages > 0 && atPage + pages <= this.pages);
    takeArea(`mapping ${pages} pages at page ${atPage} of ${this.pages}`);
    this.#addresses.areas += 1;
    const address = this.address + BigInt(atPage * PAGE_SIZE);
    const length = pages * PAGE_SIZE;
    try {
      mmap({
        address,
        length,
        prot: protection(writable),
        flags: MAP_SHARED | MAP_FIXED,
        fd,
        offset,
        context: `mapping ${pages} pages at page ${atPage} of ${this.pages}`,
        remedy: MAP_COUNT_REMEDY,
      });
    } catch (error) {
      if (!retake({ address, length })) this.#lose({ address, length });
      throw error;
    }
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    for (const { address, length } of this.#addresses.ranges) {
      mmap({
        address,
        length,
        prot: PROT_READ | PROT_WRITE,
        flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
        fd: -1,
        offset: 0,
        context: `revoking a mapping of ${length / PAGE_SIZE} pages`,
        remedy: MAP_COUNT_REMEDY,
      });
    }
    this.#open = false;
    giveBackAreas(this.#addresses.areas - this.#addresses.ranges.length);
    this.#addresses.areas = this.#addresses.ranges.length;
  }

  #lose(part: AddressRange): void {
    this.#addresses.ranges = without(this.#addresses.ranges, part);
  }

  /** From now on the addresses are in use for as long as the view, and no longer as this object, can be reached. */
  #view(): Uint8Array {
    const [whole] = this.#addresses.ranges;
    const length = this.pages * PAGE_SIZE;
    assert(whole?.length === length, 'use of a mapping that lost a part');
    const buffer = viewOf(this.address, length);
    unreachable.unregister(this);
    unreachable.register(buffer, this.#addresses);
    return new Uint8Array(buffer);
  }
}
