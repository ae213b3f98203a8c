// What a domain can do, whoever provides it (law 7). Everything above this folder is written against
// `Domain` and runs unchanged on the hypervisor in this process and on /dev/xen/* of a real host.
//
// Control operations (share, map, bind, xenstore) are asynchronous: they are hypercalls, ioctls or
// messages and may wait. The data path (notify, ring and page access) is synchronous and free of promises.
//
// A domain's memory cannot be granted by address on Linux: gntalloc hands out new shareable pages. So the
// interface offers "new pages for DOMID" and never "grant this address".

import type { DomId, Gref, Port } from './ids.ts';
import type { DmaBuf, GivenBack, LocalBuffer, Memory } from './memory.ts';
import type { Xenstore } from './xenstore.ts';

/**
 * What happens when pages go out of use on this side, also because the program died: how its peer learns
 * of that (UNMAP_NOTIFY of xen/gntalloc.h and xen/gntdev.h). A domain that dies as a whole says nothing.
 */
export interface Farewell {
  /** Offset of the byte in the pages that becomes 0. */
  readonly byte: number;
  /** Signalled once it is. */
  readonly channel: EventChannel;
}

/** Pages of ours that another domain may map: zeroed when made, contiguous in our view. */
export interface SharedPages extends AsyncDisposable {
  readonly domid: DomId;
  readonly writable: boolean;
  /** One grant reference per page, in the order of the pages. */
  readonly refs: readonly Gref[];
  readonly bytes: Uint8Array;
  /**
   * Revokes our view, and ends access as far as the other domain has unmapped the pages; to be called again
   * until nothing is held. Never waits for the other domain.
   */
  end(): Promise<GivenBack>;
  /**
   * Ends access and frees the pages. When the other domain still maps some, those stay out of use
   * until it lets go (in the hypervisor or the kernel); the promise does not wait for that.
   */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface ShareRequest {
  /** Who may map the pages. */
  readonly domid: DomId;
  readonly pages: number;
  /** Whether the other domain may write; a reader gets read-only grants. */
  readonly writable: boolean;
  readonly farewell?: Farewell;
}

/** A buffer of ours whose pages another domain may map. */
export interface LentPages {
  readonly domid: DomId;
  readonly writable: boolean;
  /** One grant reference per page, in the order of the pages. */
  readonly refs: readonly Gref[];
  /**
   * Ends access, as far as the other domain has unmapped the pages; to be called again until nothing is
   * held. Never waits for the other domain. The buffer stays whole meanwhile.
   */
  end(): Promise<GivenBack>;
}

export interface LendRequest {
  readonly domid: DomId;
  /** Made by this domain (`Memory`) or by a driver of this host. */
  readonly buffer: LocalBuffer;
  readonly writable: boolean;
}

/** The grants that this domain gives. */
export interface Grants {
  /** @throws SysError when there is no memory (ENOMEM) or no grant entry (ENOSPC) left */
  share(request: ShareRequest): Promise<SharedPages>;
  /**
   * Grants every page of a buffer that exists already.
   * @throws SysError ENOSPC without grant entries, EOPNOTSUPP where the host has no way to do it so
   */
  lend(request: LendRequest): Promise<LentPages>;
}

/** Another domain's pages in our address space, contiguous in the order of the refs. */
export interface ForeignMapping extends AsyncDisposable {
  readonly domid: DomId;
  readonly pages: number;
  readonly writable: boolean;
  /** Entries of this process's memory map that it takes: the more, the more scattered the pages are. */
  readonly areas: number;
  /** The mapped bytes. @throws AssertionError once unmapped; views taken before read zeros then */
  readonly bytes: Uint8Array;
  /** Unmaps: when the promise resolves, nothing of ours maps the pages any more. */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface MapRequest {
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly writable: boolean;
  /** Of a writable mapping. */
  readonly farewell?: Farewell;
  /** The most `areas` that it may take; without it, as many as it needs. */
  readonly maxAreas?: number;
}

/** How processors and devices see a dma-buf made of grants (GNTDEV_DMA_FLAG_*). */
export type Caching = 'cached' | 'write-combined' | 'coherent';

export interface ExportRequest {
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly caching: Caching;
}

/** Another domain's pages as a dma-buf, for drivers of this host. It maps the grants until it is released. */
export interface ExportedRefs extends DmaBuf {
  readonly domid: DomId;
  /** Closes our own handle; who has imported the buffer goes on using it. Idempotent. */
  close(): void;
  /** Whether it is closed, nobody uses it and the grants are unmapped. Does not wait. @throws SysError */
  released(): Promise<boolean>;
}

/** Other domains' memory, by the grants they gave us. */
export interface ForeignMemory {
  /**
   * Maps all of `refs` or none.
   * @throws GrantMapError naming the first ref that failed; everything mapped before it is unmapped
   * @throws SysError when the system has no room (maptrack, address space, memory); E2BIG when it would take
   *   more than `maxAreas`
   */
  map(request: MapRequest): Promise<ForeignMapping>;
  /**
   * Makes a dma-buf of all of `refs` or of none.
   * @throws GrantMapError naming the first ref that cannot be mapped
   * @throws SysError EOPNOTSUPP (with the reason) where the host makes no dma-bufs of grants; ENOMEM without
   *   room (maptrack, memory), EINVAL
   */
  export(request: ExportRequest): Promise<ExportedRefs>;
}

/** A grant could not be mapped: which one, and the hypervisor's reason. */
export class GrantMapError extends Error {
  override readonly name = 'GrantMapError';
  /** Index into the refs of the request. */
  readonly index: number;
  readonly ref: Gref;
  /** GNTST_* name, as `GNTST_bad_gntref`, or the errno name where the kernel hides the status. */
  readonly status: string;

  constructor({ index, ref, status }: { index: number; ref: Gref; status: string }) {
    super(`grant ${ref} (number ${index} of the request) cannot be mapped: ${status}`);
    this.index = index;
    this.ref = ref;
    this.status = status;
  }
}

/**
 * What to do when a channel's port is pending. The port stays masked until the handler has returned and,
 * when it returned a promise, until that has resolved: delaying it is how a storm is slowed down (XSA-332).
 */
export type EventHandler = () => void | Promise<void>;

/** Our end of an event channel. Closing it makes further notifications do nothing. */
export interface EventChannel extends AsyncDisposable {
  /** In our own numbering: what the other side binds to, when it is an unbound port. */
  readonly port: Port;
  /** Signals the other end. Does nothing when the other end is closed or not bound yet. */
  notify(): void;
}

export interface EventChannels {
  /** A new port that `remote` may bind to. @throws SysError when no port is left (ENOSPC) */
  allocUnbound(request: { remote: DomId; handler: EventHandler }): Promise<EventChannel>;
  /** Binds to a port that `remote` offered us. @throws SysError (EINVAL) when it is not offered to us */
  bindInterdomain(request: {
    remote: DomId;
    remotePort: Port;
    handler: EventHandler;
  }): Promise<EventChannel>;
}

/** One domain's view of the world. Closing it gives back everything it still holds. */
export interface Domain extends AsyncDisposable {
  readonly domid: DomId;
  readonly provider: 'hypervisor' | 'linux';
  readonly grants: Grants;
  readonly foreign: ForeignMemory;
  readonly memory: Memory;
  readonly events: EventChannels;
  readonly store: Xenstore;
}
