// The core: another domain's grant references become a buffer here, a buffer here becomes grant references
// for another domain, and neither copies a byte.
//
// Every call checks what it is given before it does anything, and undoes everything when it fails. Reading
// is the default for what others grant (who only shows has no business writing), writing for what we lend,
// because a guest wants to draw into it.

import { PAGE_SIZE } from '../abi/page.ts';
import { SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { type Caching, type Domain, type ExportedRefs, GrantMapError } from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import type { LocalBuffer } from '../xen/memory.ts';
import type { HeldBuffer } from '../xen/xenbus/driver.ts';
import { Release, type ReleaseStep } from './release.ts';
import {
  type Extent,
  endAccessStep,
  exportStep,
  freeStep,
  SharedBuffer,
  unmapStep,
} from './shared-buffer.ts';

/** What `Zcopy` needs of a domain. */
export type SharingDomain = Pick<Domain, 'grants' | 'foreign'>;

export interface FromRefsRequest extends Partial<Extent> {
  /** Who granted the pages. */
  readonly domid: DomId;
  /** One per page, in the order of the pages; as many as offset and length need, no more. */
  readonly refs: readonly Gref[];
  /** Map for writing as well; the grants must permit it. */
  readonly writable?: boolean;
  /**
   * Whether drivers of this host are to get the pages as a dma-buf: not, where the host can make one, or as
   * a condition. A dma-buf of grants is always for writing, so the grants must permit it.
   */
  readonly dmaBuf?: 'none' | 'if-possible' | 'required';
  /** Of the dma-buf. */
  readonly caching?: Caching;
}

export interface ToRefsRequest extends Partial<Extent> {
  /** Who is to have the pages. */
  readonly domid: DomId;
  /** Becomes the buffer's own: it is freed with it, and also when this call fails. */
  readonly memory: LocalBuffer;
  readonly writable?: boolean;
}

/** Pages that so many bytes need. */
export function pagesOf(bytes: number): number {
  return Math.ceil(bytes / PAGE_SIZE);
}

function invalid(call: string, context: string): SysError {
  return new SysError({ call, errnoName: 'EINVAL', context });
}

/** The part of `pages` pages that a request is about. @throws SysError EINVAL unless it fits exactly */
function extentOf(call: string, request: Partial<Extent>, pages: number): Extent {
  const { dataOffset = 0, byteLength = pages * PAGE_SIZE - dataOffset } = request;
  const whole = [dataOffset, byteLength].every((value) => Number.isSafeInteger(value));
  if (!whole || dataOffset < 0 || byteLength <= 0) {
    throw invalid(call, `${byteLength} bytes from byte ${dataOffset} on`);
  }
  const end = dataOffset + byteLength;
  if (end > pages * PAGE_SIZE) {
    throw invalid(call, `${byteLength} bytes from byte ${dataOffset} on in ${pages} pages`);
  }
  return { dataOffset, byteLength };
}

export interface ZcopyOptions {
  readonly runtime: Runtime;
  /** Used, and not owned. */
  readonly domain: SharingDomain;
  /** Told of what a call that failed could not give back in time, to list it until it is released. */
  readonly onRemains?: (remains: HeldBuffer) => void;
}

export class Zcopy {
  readonly #runtime: Runtime;
  readonly #domain: SharingDomain;
  readonly #onRemains: (remains: HeldBuffer) => void;

  constructor({ runtime, domain, onRemains = () => {} }: ZcopyOptions) {
    this.#runtime = runtime;
    this.#domain = domain;
    this.#onRemains = onRemains;
  }

  /**
   * Another domain's pages as one contiguous view and, where that is wanted, a dma-buf.
   * @throws SysError EINVAL for a bad request (no refs, ref 0, a wrong number of refs), ENOMEM without room,
   *   EOPNOTSUPP when a dma-buf is required and the host makes none
   * @throws GrantMapError naming the first ref that cannot be mapped, with nothing left mapped
   */
  async fromRefs(asked: FromRefsRequest): Promise<SharedBuffer> {
    // The caller's array may change while the grants are being mapped.
    const request = { ...asked, refs: [...asked.refs] };
    const { domid, refs, writable = false } = request;
    const extent = this.#checkRefs(request);
    const mapping = await this.#domain.foreign.map({ domid, refs, writable });
    const steps = [unmapStep(mapping)];
    try {
      const { exported, reason } = await this.#exportFor(request);
      if (exported !== undefined) steps.unshift(exportStep(exported));
      const view = () => mapping.bytes;
      const parts = { runtime: this.#runtime, domid, refs, extent, view, memory: exported, steps };
      return new SharedBuffer(reason === undefined ? parts : { ...parts, withoutDmaBuf: reason });
    } catch (error) {
      await this.#undo(steps, { direction: 'from-guest', pages: refs.length });
      throw error;
    }
  }

  /**
   * Memory of ours for another domain, page by page.
   * @throws SysError EINVAL for a bad request, ENOSPC without grant entries, EOPNOTSUPP where the host has no
   *   way to grant this memory so; the memory is given up then
   */
  async toRefs(request: ToRefsRequest): Promise<SharedBuffer> {
    const { domid, memory, writable = true } = request;
    const steps = [freeStep(memory, `domain ${domid}, or a driver that imported the memory`)];
    try {
      const extent = extentOf('toRefs', request, memory.pages);
      const lent = await this.#domain.grants.lend({ domid, buffer: memory, writable });
      steps.unshift(endAccessStep(lent));
      const view = () => memory.bytes;
      const { refs } = lent;
      return new SharedBuffer({ runtime: this.#runtime, domid, refs, extent, view, memory, steps });
    } catch (error) {
      await this.#undo(steps, { direction: 'to-guest', pages: memory.pages });
      throw error;
    }
  }

  #checkRefs(request: FromRefsRequest): Extent {
    const { refs } = request;
    if (refs.length === 0) throw invalid('fromRefs', 'a buffer of no grants');
    const zero = refs.indexOf(0 as Gref);
    if (zero >= 0) throw invalid('fromRefs', `grant number ${zero} of the request is 0`);
    const extent = extentOf('fromRefs', request, refs.length);
    const needed = pagesOf(extent.dataOffset + extent.byteLength);
    if (needed === refs.length) return extent;
    throw invalid('fromRefs', `${refs.length} grants for a buffer that has ${needed} pages`);
  }

  /** The dma-buf, or why there is none. */
  async #exportFor(
    request: FromRefsRequest,
  ): Promise<{ exported: ExportedRefs | undefined; reason?: string }> {
    const { domid, refs, dmaBuf = 'none', caching = 'cached' } = request;
    if (dmaBuf === 'none') return { exported: undefined };
    try {
      return { exported: await this.#domain.foreign.export({ domid, refs, caching }) };
    } catch (error) {
      // The pages are mapped, so what cannot be had is the dma-buf: by this host, or for writing, or for want of room.
      const missing = error instanceof SysError && WITHOUT_DMA_BUF.includes(error.errnoName);
      if (dmaBuf === 'required' || !(missing || error instanceof GrantMapError)) throw error;
      return { exported: undefined, reason: error.message };
    }
  }

  /** Gives back what a failed call had; hardly anybody else knows of it, so it is over at once as a rule. */
  async #undo(
    steps: readonly ReleaseStep[],
    what: Pick<HeldBuffer, 'direction' | 'pages'>,
  ): Promise<void> {
    const release = new Release({ runtime: this.#runtime, steps });
    const { state } = await release.release({ timeoutMs: UNDO_TIMEOUT_MS });
    if (state === 'quarantined') this.#onRemains(remainsOf(release, what));
  }
}

function remainsOf(release: Release, what: Pick<HeldBuffer, 'direction' | 'pages'>): HeldBuffer {
  return {
    ...what,
    name: 'the remains of a buffer that could not be made',
    contiguity: undefined,
    dmaBuf: false,
    get state() {
      return release.state;
    },
    get holders() {
      return release.holders;
    },
    gone: release.released,
  };
}

/** Where pages are mapped only: the host makes no dma-bufs of them, or has no room for a second mapping. */
const WITHOUT_DMA_BUF: readonly string[] = ['EOPNOTSUPP', 'ENOMEM'];
/** How long a failed call waits for its own undoing, which goes on by itself afterwards. */
const UNDO_TIMEOUT_MS = 1000;
