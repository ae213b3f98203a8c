// Other domains' pages by /dev/xen/gntdev (xen/gntdev.h of Linux): MAP_GRANT_REF makes a record of the
// grants, mmap of the range it names maps them, UNMAP_GRANT_REF drops the record.
//
// Invariants:
// - One open file for all mappings; each mapping is one record and one mmap, for writers or for readers.
//   Beyond the module's limit a mapping is several records, each mapped at its place in a reserved range.
// - All refs of a request are mapped or none. The kernel hides which one failed, so a failed request is
//   bisected: at most log2(refs) + 2 further attempts, over no more pages than the request had plus one.
// - Unmapping replaces the pages by zero pages first, which makes the kernel unmap the grants, and drops
//   the record then: once the ioctl has returned the hypervisor counts no mapping of ours.
// - A farewell is one record's, and that record is dropped last: the peer hears of it when all pages are its own.
//   It is set when all is mapped, so that no failed attempt says it.
// - Whatever fails, no record stays and no page; a hole that mmap may have left is posix/mapping.ts's care.

import assert from 'node:assert/strict';
import {
  gntdevGrantCopySegment,
  IOCTL_GNTDEV_GRANT_COPY,
  IOCTL_GNTDEV_MAP_GRANT_REF,
  IOCTL_GNTDEV_UNMAP_GRANT_REF,
  ioctlGntdevGrantCopy,
  ioctlGntdevGrantRef,
  ioctlGntdevMapGrantRef,
  ioctlGntdevUnmapGrantRef,
} from '../abi/gntdev.ts';
import { GNTCOPY_source_gref, GNTST_okay, gntstName } from '../abi/grant-table.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import { addressOf } from '../posix/libc.ts';
import { Mapping } from '../posix/mapping.ts';
import { SysError } from '../runtime/errors.ts';
import {
  type Farewell,
  type ForeignMapping,
  GrantMapError,
  type MapRequest,
} from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import { attemptAll } from './attempt-all.ts';
import type { DeviceFile } from './device.ts';
import { ForeignPages } from './foreign-pages.ts';
import { gntdevLimit } from './kernel-facts.ts';
import { LivePages } from './live-pages.ts';
import { assertWithin, notifyAtUnmap } from './unmap-notify.ts';

export const LIMIT_REMEDY =
  'a request may have as many pages as /sys/module/xen_gntdev/parameters/limit says: raise it';
const MAPTRACK_REMEDY =
  'each grant can be mapped by itself, so no maptrack entries or no memory are left: raise ' +
  'gnttab_max_maptrack_frames on the command line of Xen (max_maptrack_frames for a guest)';

/** Where the 32-bit words of a grant are in the request. */
const GRANT_WORDS = ioctlGntdevGrantRef.size / Uint32Array.BYTES_PER_ELEMENT;
const DOMID_WORD = ioctlGntdevGrantRef.fields.domid.offset / Uint32Array.BYTES_PER_ELEMENT;
const REF_WORD = ioctlGntdevGrantRef.fields.ref.offset / Uint32Array.BYTES_PER_ELEMENT;

/** The range of the device file that stands for a set of grants. */
interface GrantRange {
  /** Byte offset for mmap. */
  readonly index: bigint;
  readonly count: number;
}

/** Maps others' grants. */
export class Gntdev implements Disposable {
  readonly #device: DeviceFile;
  readonly #limit: number;
  readonly #mapped = new LivePages<ForeignPages>();

  /** Owns `device`, an open /dev/xen/gntdev. `limit`: grants that one request may name. */
  constructor(device: DeviceFile, limit = gntdevLimit()) {
    this.#device = device;
    this.#limit = Math.max(limit, 1);
  }

  /** As `ForeignMemory.map`. */
  async map(request: MapRequest): Promise<ForeignMapping> {
    assert(request.refs.length > 0, 'a mapping of no grants');
    assertWithin(request.farewell, request.refs.length);
    this.#checkAreas(request);
    const mapping = this.#tryMap(request);
    if (mapping === undefined) throw this.#explain(request);
    return mapping;
  }

  /** The pages of one record are one area, wherever the other domain has them. */
  #checkAreas({ domid, refs, maxAreas = Number.POSITIVE_INFINITY }: MapRequest): void {
    const areas = Math.ceil(refs.length / this.#limit);
    if (areas <= maxAreas) return;
    const context = `mapping ${refs.length} grants of domain ${domid} in ${areas} areas, where ${maxAreas} are left`;
    throw new SysError({ call: 'mmap /dev/xen/gntdev', errnoName: 'E2BIG', context });
  }

  /** Unmaps what is still mapped and closes the device. */
  [Symbol.dispose](): void {
    try {
      this.#mapped[Symbol.dispose]();
    } finally {
      this.#device[Symbol.dispose]();
    }
  }

  /** The mapping, or undefined when at least one of the grants cannot be mapped. */
  #tryMap(request: MapRequest): ForeignPages | undefined {
    const ranges = new Set<GrantRange>();
    const drop = () => this.#dropAll(ranges);
    let mapping: Mapping | undefined;
    try {
      for (let from = 0; from < request.refs.length; from += this.#limit) {
        const refs = request.refs.slice(from, from + this.#limit);
        ranges.add(this.#record({ ...request, refs }));
      }
      const { domid, writable, farewell } = request;
      const shown = this.#show([...ranges], writable);
      mapping = shown;
      if (farewell !== undefined) this.#announce(ranges, farewell);
      const make = (release: () => void) =>
        new ForeignPages({ domid, writable, mapping: shown, release });
      return this.#mapped.add(drop, make);
    } catch (error) {
      mapping?.[Symbol.dispose]();
      drop();
      const refused = error instanceof SysError && error.call === 'mmap';
      if (refused && error.errnoName === 'EINVAL') return undefined;
      throw error;
    }
  }

  /** One view of all ranges. */
  #show(ranges: readonly GrantRange[], writable: boolean): Mapping {
    const { fd } = this.#device;
    const [first, ...others] = ranges;
    assert(first !== undefined);
    if (others.length === 0) {
      return new Mapping(first.count, { fd, offset: Number(first.index), writable });
    }
    const mapping = new Mapping(ranges.reduce((sum, { count }) => sum + count, 0));
    try {
      let atPage = 0;
      for (const { index, count } of ranges) {
        mapping.place({ fd, offset: Number(index), atPage, pages: count, writable });
        atPage += count;
      }
      return mapping;
    } catch (error) {
      mapping[Symbol.dispose]();
      throw error;
    }
  }

  /** Gives the farewell to the kernel, for the range that has the byte, and puts that one last. @throws SysError */
  #announce(ranges: Set<GrantRange>, { byte, channel }: Farewell): void {
    let start = 0;
    for (const range of ranges) {
      const end = start + range.count * PAGE_SIZE;
      if (byte < end) {
        notifyAtUnmap(this.#device, { index: range.index + BigInt(byte - start), channel });
        ranges.delete(range);
        ranges.add(range);
        return;
      }
      start = end;
    }
  }

  /** Tells the kernel which grants the next mmap is about. */
  #record({ domid, refs }: MapRequest): GrantRange {
    const argument = new Uint8Array(ioctlGntdevMapGrantRef.sizeWith(refs.length));
    const view = new DataView(argument.buffer);
    const { fields } = ioctlGntdevMapGrantRef;
    fields.count.set(view, 0, refs.length);
    // Word by word: a buffer has thousands of grants, each of which would be an object otherwise.
    const words = new Uint32Array(argument.buffer, fields.refs.offset);
    for (let i = 0, at = 0; i < refs.length; i++, at += GRANT_WORDS) {
      words[at + DOMID_WORD] = domid;
      words[at + REF_WORD] = refs[i]!;
    }
    this.#device.ioctl(
      { name: 'IOCTL_GNTDEV_MAP_GRANT_REF', number: IOCTL_GNTDEV_MAP_GRANT_REF, argument },
      { context: `mapping ${refs.length} grants of domain ${domid}`, remedy: LIMIT_REMEDY },
    );
    return { index: fields.index.get(view, 0), count: refs.length };
  }

  /** Drops all records, even when some fail, and leaves those in the set. @throws what failed */
  #dropAll(ranges: Set<GrantRange>): void {
    const drop = (range: GrantRange) => {
      this.#drop(range);
      ranges.delete(range);
    };
    attemptAll(ranges, drop, 'dropping records of grants');
  }

  #drop({ index, count }: GrantRange): void {
    const argument = new Uint8Array(ioctlGntdevUnmapGrantRef.size);
    ioctlGntdevUnmapGrantRef.write(new DataView(argument.buffer), 0, { index, count });
    this.#device.ioctl(
      { name: 'IOCTL_GNTDEV_UNMAP_GRANT_REF', number: IOCTL_GNTDEV_UNMAP_GRANT_REF, argument },
      { context: `unmapping ${count} grants` },
    );
  }

  /** Why a request that was refused as a whole was refused. */
  #explain(request: MapRequest): GrantMapError | SysError {
    const { domid, refs } = request;
    const index = this.#firstBad(request);
    if (index !== undefined) {
      const ref = refs[index]!;
      return new GrantMapError({ index, ref, status: this.#statusOf(domid, ref) });
    }
    return new SysError({
      call: 'mmap /dev/xen/gntdev',
      errnoName: 'EINVAL',
      context: `mapping ${refs.length} grants of domain ${domid}`,
      remedy: MAPTRACK_REMEDY,
    });
  }

  /** Index of the first ref that cannot be mapped; undefined when the one found can be, by itself. */
  #firstBad({ domid, refs, writable }: MapRequest): number | undefined {
    const canMap = (from: number, to: number): boolean => {
      const mapping = this.#tryMap({ domid, refs: refs.slice(from, to), writable });
      mapping?.[Symbol.dispose]();
      return mapping !== undefined;
    };
    let good = 0;
    let bad = refs.length;
    while (bad - good > 1) {
      const middle = (good + bad) >>> 1;
      if (canMap(good, middle)) good = middle;
      else bad = middle;
    }
    return canMap(good, bad) ? undefined : good;
  }

  /**
   * What the hypervisor thinks of a grant: mmap keeps its status to itself, copying a byte does not.
   * The answer is mmap's errno when the grant can be read, as when only writing is refused.
   */
  #statusOf(domid: DomId, ref: Gref): string {
    const byte = new Uint8Array(1);
    const segment = new Uint8Array(gntdevGrantCopySegment.size);
    const segmentView = new DataView(segment.buffer);
    gntdevGrantCopySegment.write(segmentView, 0, {
      source: { foreign: { ref, offset: 0, domid } },
      dest: { virt: addressOf(byte) },
      len: byte.length,
      flags: GNTCOPY_source_gref,
      status: GNTST_okay,
    });
    const argument = new Uint8Array(ioctlGntdevGrantCopy.size);
    const segments = addressOf(segment);
    ioctlGntdevGrantCopy.write(new DataView(argument.buffer), 0, { count: 1, segments });
    this.#device.ioctl(
      { name: 'IOCTL_GNTDEV_GRANT_COPY', number: IOCTL_GNTDEV_GRANT_COPY, argument },
      { context: `asking for the status of grant ${ref} of domain ${domid}` },
    );
    const status = gntdevGrantCopySegment.fields.status.get(segmentView, 0);
    return status === GNTST_okay ? 'EINVAL' : gntstName(status);
  }
}
