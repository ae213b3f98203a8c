// Pages of ours for another domain by /dev/xen/gntalloc (xen/gntalloc.h of Linux): ALLOC_GREF allocates
// zeroed pages and grants them, mmap of the range it names shows them, DEALLOC_GREF ends the grants.
//
// Invariants:
// - One open file for everything shared; each share is one range, whose pages are contiguous in our view.
// - Access ends after our own view is gone. What the peer still maps then the kernel keeps aside, counts
//   towards its limit, and frees at one of the next calls after the peer has let go.
// - The limit is for the pages of all processes together, so splitting a request would not help.

import assert from 'node:assert/strict';
import {
  GNTALLOC_FLAG_WRITABLE,
  IOCTL_GNTALLOC_ALLOC_GREF,
  IOCTL_GNTALLOC_DEALLOC_GREF,
  ioctlGntallocAllocGref,
  ioctlGntallocDeallocGref,
} from '../abi/gntalloc.ts';
import { Mapping } from '../posix/mapping.ts';
import type { SharedPages, ShareRequest } from '../xen/domain.ts';
import { type Gref, gref } from '../xen/ids.ts';
import type { DeviceFile } from './device.ts';
import { LivePages } from './device-pages.ts';

const LIMIT_REMEDY =
  'all programs together may share as many pages as /sys/module/xen_gntalloc/parameters/limit says, ' +
  'and as the grant table has room for (gnttab_max_frames): raise the one that is too small';

/** A range of the device file, and the grants of its pages. */
interface GrantedRange {
  /** Byte offset for mmap. */
  readonly index: bigint;
  readonly refs: readonly Gref[];
}

export class Gntalloc implements Disposable {
  readonly #device: DeviceFile;
  readonly #shared = new LivePages();

  /** Owns `device`, an open /dev/xen/gntalloc. */
  constructor(device: DeviceFile) {
    this.#device = device;
  }

  /** As `Grants.share`. */
  async share(request: ShareRequest): Promise<SharedPages> {
    assert(request.pages > 0, 'sharing no pages');
    const range = this.#allocate(request);
    const release = () => this.#deallocate(range);
    try {
      const file = { fd: this.#device.fd, offset: Number(range.index), writable: true };
      const mapping = new Mapping(request.pages, file);
      const { domid, writable } = request;
      return this.#shared.add({ domid, refs: range.refs, writable, mapping, release });
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Ends access to everything that is still shared and closes the device. */
  [Symbol.dispose](): void {
    try {
      this.#shared[Symbol.dispose]();
    } finally {
      this.#device[Symbol.dispose]();
    }
  }

  #allocate({ domid, pages, writable }: ShareRequest): GrantedRange {
    const argument = new Uint8Array(ioctlGntallocAllocGref.sizeWith(pages));
    const view = new DataView(argument.buffer);
    const { fields } = ioctlGntallocAllocGref;
    fields.domid.set(view, 0, domid);
    fields.flags.set(view, 0, writable ? GNTALLOC_FLAG_WRITABLE : 0);
    fields.count.set(view, 0, pages);
    this.#device.ioctl(
      { name: 'IOCTL_GNTALLOC_ALLOC_GREF', number: IOCTL_GNTALLOC_ALLOC_GREF, argument },
      { context: `sharing ${pages} pages with domain ${domid}`, remedy: LIMIT_REMEDY },
    );
    const refs = Array.from({ length: pages }, (_, i) => gref(fields.gref_ids.getAt(view, 0, i)));
    return { index: fields.index.get(view, 0), refs };
  }

  #deallocate({ index, refs }: GrantedRange): void {
    const argument = new Uint8Array(ioctlGntallocDeallocGref.size);
    const count = refs.length;
    ioctlGntallocDeallocGref.write(new DataView(argument.buffer), 0, { index, count });
    this.#device.ioctl(
      { name: 'IOCTL_GNTALLOC_DEALLOC_GREF', number: IOCTL_GNTALLOC_DEALLOC_GREF, argument },
      { context: `ending access to ${count} pages` },
    );
  }
}
