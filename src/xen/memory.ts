// Memory of this domain that drivers and other domains can use without a copy: dma-bufs on a Linux host,
// machine frames in the in-process hypervisor. What a buffer is made of is the provider's business; what
// everybody may ask is how its pages lie, where its file descriptor is, and whether all of it came back.

import type { DomId } from './ids.ts';

/**
 * How pages lie, for whoever needs them in one piece: `host` in consecutive machine frames; `device` at
 * consecutive addresses of a device (its IOMMU joins them, or its driver allocated them for itself); `none`
 * scattered. (In the thread of 2018: host-contiguous and IPA-contiguous.)
 */
export type ContiguityKind = 'host' | 'device' | 'none';

export interface Contiguity {
  readonly kind: ContiguityKind;
  /** How that is known, in words: `3 runs of machine frames`, `allocated from linux,cma`. */
  readonly proof: string;
}

/** A buffer that drivers of this host can import. */
export interface DmaBuf {
  readonly pages: number;
  readonly contiguity: Contiguity;
  /**
   * The file descriptor for other drivers of this host, valid while the buffer is; a handle to use, never to
   * identify the buffer by. Undefined where there is none: in process, or when the buffer is made of several.
   */
  readonly fd: number | undefined;
}

/** Where giving something back stands, after one try. */
export interface GivenBack {
  /** Pages that the other side may still use; 0: it is over. */
  readonly heldPages: number;
  /**
   * How that is known: `grant table`, `memfd seal`, `device attachments`, `lent`, or `driver` where the host
   * cannot be asked.
   */
  readonly evidence: string;
}

/** Memory of ours, zeroed when it was made. */
export interface LocalBuffer extends DmaBuf {
  /** Our own view, made when first asked for. @throws SysError where the driver gives none */
  readonly bytes: Uint8Array;
  /**
   * Gives the memory up. Our views read zeros from now on. Never waits for others: may be called again
   * until nothing is held, and the pages serve nobody else before that.
   */
  free(): Promise<GivenBack>;
}

export interface AllocateRequest {
  readonly pages: number;
  /** What is needed at least; `host` serves where `device` is asked for. */
  readonly contiguity: ContiguityKind;
  /** Every page must lie below 2^addressBits in the machine. */
  readonly addressBits?: number;
}

/** Pages set aside for one guest alone, before it needs them (law 3). */
export interface MemoryPool extends AsyncDisposable {
  /** Pages in all, lent ones included. */
  readonly pages: number;
  readonly freePages: number;
  /** Zeroed memory out of the pool, without any contiguity. @throws SysError ENOMEM */
  allocate(pages: number): Promise<LocalBuffer>;
  /** Gives back what is not lent; what is lent goes back when it is freed. */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface Memory {
  /** @throws SysError ENOMEM when so much cannot be set aside, EOPNOTSUPP where the host has no way */
  createPool(request: { readonly domid: DomId; readonly pages: number }): Promise<MemoryPool>;
  /**
   * Memory outside of any pool, as contiguous as asked for.
   * @throws SysError ENOMEM, or EOPNOTSUPP (with the reason) where the host has no such memory
   */
  allocate(request: AllocateRequest): Promise<LocalBuffer>;
  /**
   * A buffer that somebody else in this domain made, by the file descriptor of a dma-buf or a memfd, which
   * stays the caller's. While it is not freed, the same memory gives the same buffer, by whatever descriptor.
   * @throws SysError EINVAL when it is neither (or is no whole number of pages), EOPNOTSUPP where the domain
   *   has no file descriptors
   */
  adopt(fd: number): Promise<LocalBuffer>;
}
