// Looks at our own grant table (xen/grant_table.h, version 1), which the kernel keeps to itself, to see what
// the kernel does not tell: whether a domain still maps what we lent it. Xen sets GTF_reading and GTF_writing
// in an entry while it is mapped.
//
// Invariants:
// - It only reads: the table is mapped without write permission, and is never made to grow.
// - An entry counts as ours while it has the domain and the frame that it had when it was lent. Once it was
//   seen without them, or free, it is not looked at again: it may be anybody's.
// - What it cannot see it does not claim: entries that do not show the loan make it say so.

import assert from 'node:assert/strict';
import {
  GNTST_okay,
  GNTTABOP_get_version,
  GNTTABOP_query_size,
  GNTTABOP_setup_table,
  GTF_permit_access,
  GTF_reading,
  GTF_type_mask,
  GTF_writing,
  gntstName,
  gnttabGetVersion,
  gnttabQuerySize,
  gnttabSetupTable,
  grantEntryV1,
} from '../abi/grant-table.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import { DOMID_SELF } from '../abi/xen.ts';
import type { CallContext } from '../posix/libc.ts';
import type { Mapping } from '../posix/mapping.ts';
import { SysError } from '../runtime/errors.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import { unsupported } from '../xen/unsupported.ts';
import type { OpenDevice } from './device.ts';
import type { GuestType } from './kernel-facts.ts';
import { MAX_LISTED_FRAMES, Privcmd } from './privcmd.ts';

const ENTRIES_PER_FRAME = PAGE_SIZE / grantEntryV1.size;
const READABLE_VERSION = 1;
const USED = GTF_reading | GTF_writing;
const LOOKING: CallContext = { context: "looking at this domain's own grant table" };
const TRANSLATED_REASON =
  'only a PV domain can map its own grant table; what the other side still maps is not known here';

interface Entry {
  readonly ref: Gref;
  readonly frame: number;
}

/** The grants of one loan, as their entries tell. */
export class WatchedGrants {
  readonly #observer: GrantObserver;
  readonly #domid: DomId;
  #entries: readonly Entry[];

  constructor(observer: GrantObserver, domid: DomId, entries: readonly Entry[]) {
    this.#observer = observer;
    this.#domid = domid;
    this.#entries = entries;
  }

  /** How many of them the other domain maps now. @throws SysError when the table cannot be read */
  mapped(): number {
    const table = this.#observer.table(this.#entries);
    return this.#entries.filter(({ ref }) => (flagsOf(table, ref) & USED) !== 0).length;
  }

  /** How many still let it in, or are mapped: after their end the kernel keeps on trying. @throws SysError */
  left(): number {
    const table = this.#observer.table(this.#entries);
    this.#entries = this.#entries.filter((entry) => shows(table, this.#domid, entry));
    return this.#entries.length;
  }
}

export class GrantObserver implements Disposable {
  readonly #privcmd: Privcmd;
  #table: Mapping;

  private constructor(privcmd: Privcmd) {
    this.#privcmd = privcmd;
    this.#table = mapTable(privcmd);
  }

  /** @throws SysError with the reason where this host does not let us look */
  static open(open: OpenDevice, guestType: GuestType | undefined): GrantObserver {
    if (guestType !== 'PV') throw unsupported('GNTTABOP_setup_table', TRANSLATED_REASON);
    const privcmd = new Privcmd(open);
    try {
      requireVersion(privcmd);
      return new GrantObserver(privcmd);
    } catch (error) {
      privcmd[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Remembers what the entries of a new loan look like; undefined when they do not show it, as then this is
   * not the table that counts. @throws SysError when the table cannot be read
   */
  watch(domid: DomId, refs: readonly Gref[]): WatchedGrants | undefined {
    const view = this.table(refs.map((ref) => ({ ref })));
    const { frame } = grantEntryV1.fields;
    const entries = refs.map((ref) => ({ ref, frame: frame.get(view, ref * grantEntryV1.size) }));
    if (!entries.every((entry) => shows(view, domid, entry))) return undefined;
    return new WatchedGrants(this, domid, entries);
  }

  /** The table, large enough for all `entries`. @throws SysError */
  table(entries: readonly { readonly ref: Gref }[]): DataView {
    const last = entries.reduce((highest, { ref }) => Math.max(highest, ref), 0);
    if (last >= this.#table.pages * ENTRIES_PER_FRAME) this.#remap();
    assert(last < this.#table.pages * ENTRIES_PER_FRAME, `entry ${last} is not in our grant table`);
    const { buffer, byteOffset } = this.#table.bytes;
    return new DataView(buffer, byteOffset);
  }

  [Symbol.dispose](): void {
    this.#table[Symbol.dispose]();
    this.#privcmd[Symbol.dispose]();
  }

  /** The table has grown since it was mapped. */
  #remap(): void {
    const grown = mapTable(this.#privcmd);
    this.#table[Symbol.dispose]();
    this.#table = grown;
  }
}

function flagsOf(table: DataView, ref: Gref): number {
  return grantEntryV1.fields.flags.get(table, ref * grantEntryV1.size);
}

/** Whether an entry lets `domid` into the frame, or is still mapped. */
function shows(table: DataView, domid: DomId, { ref, frame }: Entry): boolean {
  const entry = grantEntryV1.read(table, ref * grantEntryV1.size);
  const permits = (entry.flags & GTF_type_mask) === GTF_permit_access;
  return permits && entry.domid === domid && entry.frame === frame;
}

function requireVersion(privcmd: Privcmd): void {
  const result = privcmd.grantTable(
    {
      op: GNTTABOP_get_version,
      name: 'GNTTABOP_get_version',
      write: (view) => gnttabGetVersion.write(view, 0, { dom: DOMID_SELF, version: 0 }),
    },
    LOOKING,
  );
  const { version } = gnttabGetVersion.read(result, 0);
  if (version === READABLE_VERSION) return;
  throw unsupported('GNTTABOP_get_version', `the grant table is of version ${version}, not 1`);
}

/** A view of the whole table as it is now. */
function mapTable(privcmd: Privcmd): Mapping {
  const count = tableFrames(privcmd);
  const result = privcmd.grantTable(
    {
      op: GNTTABOP_setup_table,
      name: 'GNTTABOP_setup_table',
      write: (view, list) =>
        gnttabSetupTable.write(view, 0, {
          dom: DOMID_SELF,
          nr_frames: count,
          status: GNTST_okay,
          frame_list: list,
        }),
    },
    LOOKING,
  );
  requireOkay('GNTTABOP_setup_table', gnttabSetupTable.read(result, 0).status);
  return privcmd.mapOwn(privcmd.frames(count), LOOKING);
}

/** How many frames the table has; asking for as many does not make it grow. */
function tableFrames(privcmd: Privcmd): number {
  const result = privcmd.grantTable(
    {
      op: GNTTABOP_query_size,
      name: 'GNTTABOP_query_size',
      write: (view) =>
        gnttabQuerySize.write(view, 0, {
          dom: DOMID_SELF,
          nr_frames: 0,
          max_nr_frames: 0,
          status: GNTST_okay,
        }),
    },
    LOOKING,
  );
  const { nr_frames, status } = gnttabQuerySize.read(result, 0);
  requireOkay('GNTTABOP_query_size', status);
  if (nr_frames > 0 && nr_frames <= MAX_LISTED_FRAMES) return nr_frames;
  throw unsupported('GNTTABOP_query_size', `a grant table of ${nr_frames} frames cannot be read`);
}

function requireOkay(call: string, status: number): void {
  if (status === GNTST_okay) return;
  throw new SysError({ call, errnoName: gntstName(status), ...LOOKING });
}
