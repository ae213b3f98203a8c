// Pages of ours for another domain by /dev/xen/gntalloc (xen/gntalloc.h of Linux): ALLOC_GREF allocates
// zeroed pages and grants them, mmap of the range it names shows them, DEALLOC_GREF ends the grants.
//
// Invariants:
// - One open file for everything shared; each share is one range, whose pages are contiguous in our view.
// - Access ends after our own view is gone. What the peer still maps then the kernel keeps aside, and frees
//   some time after the peer has let go.
// - Sharing does not look at the grant table: only who asks at the end what the peer still maps pays for it.
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
import type { Farewell, SharedPages, ShareRequest } from '../xen/domain.ts';
import { type Gref, gref } from '../xen/ids.ts';
import type { DeviceFile } from './device.ts';
import type { GrantObserver } from './grant-observer.ts';
import { LivePages } from './live-pages.ts';
import { GntallocPages, type KeptFarewell } from './shared-pages.ts';
import { assertWithin, forgetEndOfGrant, notifyAtEndOfGrant } from './unmap-notify.ts';

const LIMIT_REMEDY =
  'all programs together may share as many pages as /sys/module/xen_gntalloc/parameters/limit says, ' +
  'and as the grant table has room for (gnttab_max_frames): raise the one that is too small';

/** A range of the device file, and the grants of its pages. */
interface GrantedRange {
  /** Byte offset for mmap. */
  readonly index: bigint;
  readonly refs: readonly Gref[];
}

interface SharedParts {
  readonly request: ShareRequest;
  readonly range: GrantedRange;
  readonly mapping: Mapping;
  readonly farewell: KeptFarewell | undefined;
}

export class Gntalloc implements Disposable {
  readonly #device: DeviceFile;
  readonly #observer: () => GrantObserver | undefined;
  readonly #shared = new LivePages<GntallocPages>();

  /**
   * Owns `device`, an open /dev/xen/gntalloc.
   * @param observer asked when shared pages first end; undefined where this host does not let us look
   */
  constructor(device: DeviceFile, observer: () => GrantObserver | undefined = () => undefined) {
    this.#device = device;
    this.#observer = observer;
  }

  /** As `Grants.share`. */
  async share(request: ShareRequest): Promise<SharedPages> {
    assert(request.pages > 0, 'sharing no pages');
    assertWithin(request.farewell, request.pages);
    const range = this.#allocate(request);
    let mapping: Mapping | undefined;
    try {
      const file = { fd: this.#device.fd, offset: Number(range.index), writable: true };
      mapping = new Mapping(request.pages, file);
      // Last, as what has a farewell says it when it is undone.
      const farewell = this.#keep(range, request.farewell);
      return this.#pages({ request, range, mapping, farewell });
    } catch (error) {
      mapping?.[Symbol.dispose]();
      this.#deallocate(range);
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

  #pages({ request, range, mapping, farewell }: SharedParts): GntallocPages {
    const { domid, writable } = request;
    const { refs } = range;
    const watch = () => this.#observer()?.watch(domid, refs);
    return this.#shared.add(
      () => this.#deallocate(range),
      (endAccess) =>
        new GntallocPages({ domid, writable, refs, mapping, farewell, watch, endAccess }),
    );
  }

  /** Gives the farewell to the kernel. @throws SysError */
  #keep({ index }: GrantedRange, farewell: Farewell | undefined): KeptFarewell | undefined {
    if (farewell === undefined) return undefined;
    const { byte, channel } = farewell;
    const notify = { index: index + BigInt(byte), channel };
    notifyAtEndOfGrant(this.#device, notify);
    return { byte, channel, forget: () => forgetEndOfGrant(this.#device, notify) };
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
