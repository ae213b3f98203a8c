// Buffers of ours for another domain (IMP_TO_REFS of xen/gntdev.h): the kernel grants every page of a dma-buf,
// always for writing.
//
// Invariants:
// - Every dma-buf that is lent has an open gntdev of its own: IMP_RELEASE looks loans up by the number of a
//   file descriptor, within one open file, so it can only mean ours. The buffer's descriptors stay open.
// - One dma-buf lends at most 65,535 pages: the kernel counts entries in 16 bits, and would take 65,536 for 0.
// - IMP_RELEASE succeeds while the other domain still maps pages, and says nothing: access-end.ts deals with that.
// - Until the loan is over the buffer is held: its memory is not given back.

import {
  IOCTL_GNTDEV_DMABUF_IMP_RELEASE,
  IOCTL_GNTDEV_DMABUF_IMP_TO_REFS,
  ioctlGntdevDmabufImpRelease,
  ioctlGntdevDmabufImpToRefs,
} from '../abi/gntdev.ts';
import { SysError } from '../runtime/errors.ts';
import type { LendRequest, LentPages } from '../xen/domain.ts';
import { type DomId, type Gref, gref } from '../xen/ids.ts';
import type { GivenBack } from '../xen/memory.ts';
import { unsupported } from '../xen/unsupported.ts';
import { AccessEnd } from './access-end.ts';
import { attemptAll } from './attempt-all.ts';
import { type DeviceFile, GNTDEV, type OpenDevice } from './device.ts';
import { NO_DMABUF_REMEDY } from './exports.ts';
import type { GrantObserver, WatchedGrants } from './grant-observer.ts';
import { knowsMachineFrames } from './kernel-facts.ts';
import { type DmaBufPart, LinuxBuffer } from './linux-buffer.ts';

const CALL = 'ioctl IOCTL_GNTDEV_DMABUF_IMP_TO_REFS';

/** Pages that one dma-buf can lend. */
export const MAX_LENT_PAGES = 65_535;

const ENTRIES_REMEDY =
  'the grant table is full: raise gnttab_max_frames on the command line of Xen (max_grant_frames for a guest)';
export const NO_LENDING_REASON = 'this kernel lends no dma-bufs';
const READ_ONLY_REASON = 'the kernel lends the pages of a dma-buf for writing only';
const WRONG_FRAMES_REASON =
  'the kernel of this PV guest takes its own frame numbers for the machine’s, and would grant wrong frames';
const WRONG_FRAMES_REMEDY = 'boot it with iommu=soft, or as a PVH guest';
const FOREIGN_BUFFER_REASON = 'only buffers of this host can be lent';

export interface LenderParts {
  readonly open: OpenDevice;
  /** Asked when something is first lent; undefined where this host does not let us look. */
  readonly observer: () => GrantObserver | undefined;
  /** Whether the kernel would grant the right frames; it is asked when left out. */
  readonly knowsMachineFrames?: () => boolean;
}

export class Lender implements Disposable {
  readonly #parts: LenderParts;
  readonly #live = new Set<LinuxLoan>();
  #never: SysError | undefined;

  constructor(parts: LenderParts) {
    this.#parts = parts;
  }

  /** As `Grants.lend`. */
  async lend({ domid, buffer, writable }: LendRequest): Promise<LentPages> {
    if (!writable) throw unsupported(CALL, READ_ONLY_REASON);
    if (!(buffer instanceof LinuxBuffer)) throw unsupported(CALL, FOREIGN_BUFFER_REASON);
    if (this.#never !== undefined) throw this.#never;
    const { knowsMachineFrames: knows = knowsMachineFrames } = this.#parts;
    if (!knows()) throw wrongFrames();
    const hold = buffer.hold();
    const parts: LentPart[] = [];
    try {
      for (const dmaBuf of buffer.dmaBufs) parts.push(this.#lendPart(domid, dmaBuf));
      return this.#loan({ domid, parts, hold });
    } catch (error) {
      hold[Symbol.dispose]();
      attemptAll(parts, (part) => part.end(), 'taking back what was lent already');
      throw error;
    }
  }

  /** Ends all loans, without asking whether the other domains are done: the kernel does what is left to do. @throws what failed */
  [Symbol.dispose](): void {
    attemptAll(this.#live, (loan) => loan.abandon(), 'ending loans');
  }

  #loan({ domid, parts, hold }: Pick<LoanParts, 'domid' | 'parts' | 'hold'>): LinuxLoan {
    const refs = parts.flatMap((part) => part.refs);
    const watched = this.#parts.observer()?.watch(domid, refs);
    const onEnd = () => this.#live.delete(loan);
    const loan = new LinuxLoan({ domid, refs, parts, hold, watched, onEnd });
    this.#live.add(loan);
    return loan;
  }

  #lendPart(domid: DomId, dmaBuf: DmaBufPart): LentPart {
    const device = this.#parts.open(GNTDEV);
    try {
      return new LentPart(device, dmaBuf, lendDmaBuf(device, domid, dmaBuf));
    } catch (error) {
      device[Symbol.dispose]();
      if (error instanceof SysError && error.errnoName === 'ENOTTY') {
        this.#never = unsupported(CALL, NO_LENDING_REASON, NO_DMABUF_REMEDY);
        throw this.#never;
      }
      throw error;
    }
  }
}

/** Why a kernel that would grant wrong frames is not asked to. */
export function wrongFrames(): SysError {
  return unsupported(CALL, WRONG_FRAMES_REASON, WRONG_FRAMES_REMEDY);
}

/** Lends one dma-buf. @returns a reference for each of its pages @throws SysError */
export function lendDmaBuf(device: DeviceFile, domid: DomId, { fd, pages }: DmaBufPart): Gref[] {
  if (pages > MAX_LENT_PAGES) {
    throw unsupported(CALL, `a dma-buf of ${pages} pages is lent: ${MAX_LENT_PAGES} are the most`);
  }
  const argument = new Uint8Array(ioctlGntdevDmabufImpToRefs.sizeWith(pages));
  const view = new DataView(argument.buffer);
  const { fields } = ioctlGntdevDmabufImpToRefs;
  fields.fd.set(view, 0, fd);
  fields.count.set(view, 0, pages);
  fields.domid.set(view, 0, domid);
  const name = 'IOCTL_GNTDEV_DMABUF_IMP_TO_REFS';
  device.ioctl(
    { name, number: IOCTL_GNTDEV_DMABUF_IMP_TO_REFS, argument },
    { context: `lending a dma-buf of ${pages} pages to domain ${domid}`, remedy: ENTRIES_REMEDY },
  );
  return Array.from({ length: pages }, (_, i) => gref(fields.refs.getAt(view, 0, i)));
}

/** One dma-buf that is lent, with the open gntdev of this loan alone. */
class LentPart {
  readonly refs: readonly Gref[];
  readonly #device: DeviceFile;
  readonly #dmaBuf: DmaBufPart;
  #ended = false;

  constructor(device: DeviceFile, dmaBuf: DmaBufPart, refs: readonly Gref[]) {
    this.refs = refs;
    this.#device = device;
    this.#dmaBuf = dmaBuf;
  }

  /** Ends access, once. Closing the device would, too; asking for it says when it fails. @throws SysError */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    const { fd, pages } = this.#dmaBuf;
    const argument = new Uint8Array(ioctlGntdevDmabufImpRelease.size);
    ioctlGntdevDmabufImpRelease.write(new DataView(argument.buffer), 0, { fd });
    const name = 'IOCTL_GNTDEV_DMABUF_IMP_RELEASE';
    try {
      this.#device.ioctl(
        { name, number: IOCTL_GNTDEV_DMABUF_IMP_RELEASE, argument },
        { context: `ending the loan of a dma-buf of ${pages} pages` },
      );
    } finally {
      this.#device[Symbol.dispose]();
    }
  }
}

interface LoanParts {
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly parts: readonly LentPart[];
  /** Keeps the buffer's memory. */
  readonly hold: Disposable;
  /** Undefined where nobody can look. */
  readonly watched: WatchedGrants | undefined;
  readonly onEnd: () => void;
}

class LinuxLoan implements LentPages {
  readonly domid: DomId;
  readonly writable = true;
  readonly refs: readonly Gref[];
  readonly #loan: LoanParts;
  readonly #access: AccessEnd;

  constructor(loan: LoanParts) {
    const { domid, refs, parts, watched } = loan;
    this.domid = domid;
    this.refs = refs;
    this.#loan = loan;
    this.#access = new AccessEnd({
      watch: () => watched,
      endAccess: () => attemptAll(parts, (part) => part.end(), 'ending a loan'),
    });
  }

  async end(): Promise<GivenBack> {
    const result = this.#access.end();
    if (result.heldPages === 0) this.#finish();
    return result;
  }

  /** Ends access whoever maps what: for the end of the domain. @throws what failed */
  abandon(): void {
    try {
      this.#access.abandon();
    } finally {
      this.#finish();
    }
  }

  #finish(): void {
    this.#loan.hold[Symbol.dispose]();
    this.#loan.onEnd();
  }
}
