// Other domains' grants in our address space: the map hypercall, with every operation's status looked at.
//
// Invariant: when one grant of a request cannot be mapped, all others of it are unmapped before the
// caller learns of it.

import assert from 'node:assert/strict';
import { GNTST_no_space, GNTST_okay, gntstName } from '../abi/grant-table.ts';
import { SysError } from '../runtime/errors.ts';
import { type Runtime, turn } from '../runtime/runtime.ts';
import {
  type ExportRequest,
  type Farewell,
  type ForeignMapping,
  type ForeignMemory,
  GrantMapError,
  type MapRequest,
} from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import { contiguityOf } from './contiguity.ts';
import type { GivenBackPages, GuestBalloon } from './guest-balloon.ts';
import { GuestExport } from './guest-export.ts';
import type { MemoryOptions } from './guest-memory.ts';
import type { HypercallPort, HypercallResult, WindowRef } from './hypercalls.ts';
import type { Iommu } from './iommu.ts';

const NO_MAPTRACK_REMEDY =
  'unmap what is not needed any more, or give the domain that maps a larger max_maptrack_frames';

/** Where nobody says how many areas a mapping may take: all that a u32 can say. */
const ANY_AREAS = 0xffff_ffff;

export interface ForeignOptions extends MemoryOptions {
  readonly runtime: Runtime;
}

export class GuestForeign implements ForeignMemory {
  readonly #runtime: Runtime;
  readonly #port: HypercallPort;
  readonly #balloon: GuestBalloon;
  readonly #iommu: Iommu | undefined;
  readonly #mappings = new Set<GuestForeignMapping>();
  readonly #exports = new Set<GuestExport>();
  #stopped = false;

  constructor({ runtime, port, balloon, iommu }: ForeignOptions) {
    this.#runtime = runtime;
    this.#port = port;
    this.#balloon = balloon;
    this.#iommu = iommu;
  }

  /** Dma-bufs that are not released. */
  get dmaBufs(): number {
    return this.#exports.size;
  }

  /** Devices attached to them. */
  get attachments(): number {
    return [...this.#exports].reduce((total, { attached }) => total + attached, 0);
  }

  async map({ farewell, ...request }: MapRequest): Promise<ForeignMapping> {
    const { domid, writable } = request;
    const window = await this.#mapAll({ ...request, device: false });
    const mapping = new GuestForeignMapping(this, { domid, writable, window, farewell });
    this.#mappings.add(mapping);
    return mapping;
  }

  /**
   * As gntdev: always writable, so a read-only grant cannot be exported. Memory that is not cached has to
   * be memory that the kernel set aside for DMA, whose frames go back to Xen to make room for the grants.
   */
  async export({ domid, refs, caching }: ExportRequest): Promise<GuestExport> {
    assert(refs.length > 0, 'a dma-buf of no grants');
    const room = caching === 'cached' ? undefined : await this.#balloon.giveBack(refs.length);
    try {
      const window = await this.#mapAll({ domid, refs, writable: true, device: true });
      return this.#newExport(domid, window, room);
    } catch (error) {
      await room?.restore();
      throw error;
    }
  }

  view(window: WindowRef): Uint8Array {
    return this.#port.view(window);
  }

  /** Unmaps a mapping of ours. Once it is unmapped, and after a failure, it may be called again. */
  async unmap(
    mapping: GuestForeignMapping,
    { window, viewed }: { window: WindowRef; viewed: boolean },
  ): Promise<void> {
    if (!this.#mappings.has(mapping) || this.#stopped) return;
    await this.#unmapWindow(window, { viewed });
    this.#mappings.delete(mapping);
  }

  /** Before the ports are closed that peers are told by. */
  sayFarewells(): void {
    for (const mapping of this.#mappings) mapping.sayFarewell();
  }

  async close(): Promise<void> {
    for (const exported of [...this.#exports].reverse()) await exported.end();
    for (const mapping of [...this.#mappings].reverse()) await mapping[Symbol.asyncDispose]();
  }

  /** The domain is over: the hypervisor has unmapped everything. */
  stop(): void {
    this.#stopped = true;
    this.#mappings.clear();
    for (const exported of this.#exports) exported.stop();
    this.#exports.clear();
  }

  /** Maps all of the refs. @throws GrantMapError or SysError, with nothing mapped */
  async #mapAll(
    request: Omit<MapRequest, 'farewell'> & { readonly device: boolean },
  ): Promise<HypercallResult<'mapGrants'>> {
    const { domid, writable, device, maxAreas = ANY_AREAS } = request;
    assert(request.refs.length > 0, 'a mapping of no grants');
    const refs = Uint32Array.from(request.refs);
    const asked = { domid, refs, writable, device, maxAreas };
    const mapped = await this.#port.call('mapGrants', asked);
    try {
      const index = mapped.statuses.findIndex((status) => status !== GNTST_okay);
      if (index >= 0) throw mapError(request, index, mapped.statuses[index]!);
      if (!device && !mapped.shown) await this.#showRest(mapped);
      return mapped;
    } catch (error) {
      this.#port.forgoView(mapped);
      await this.#port.call('unmapGrants', { window: mapped.window });
      throw error;
    }
  }

  /** Pages that are scattered take many system calls: others get their turn between some and some. */
  async #showRest({ window }: WindowRef): Promise<void> {
    do await turn(this.#runtime);
    while (!(await this.#port.call('showGrants', { window })));
  }

  #newExport(
    domid: DomId,
    window: WindowRef & { readonly frames: Uint32Array },
    room: GivenBackPages | undefined,
  ): GuestExport {
    const exported: GuestExport = new GuestExport({
      domid,
      frames: window.frames,
      contiguity: contiguityOf(window.frames, this.#iommu),
      unmap: async () => {
        if (!this.#exports.has(exported) || this.#stopped) return;
        await this.#unmapWindow(window, { viewed: false });
        this.#exports.delete(exported);
        await room?.restore();
      },
    });
    this.#exports.add(exported);
    return exported;
  }

  async #unmapWindow(window: WindowRef, { viewed }: { viewed: boolean }): Promise<void> {
    if (!viewed) this.#port.forgoView(window);
    const statuses = await this.#port.call('unmapGrants', { window: window.window });
    assert(
      statuses.every((status) => status === GNTST_okay),
      'a grant that we mapped was not mapped',
    );
  }
}

/** Why a request failed at its grant number `index`: for want of room of ours, or because of the grant. */
function mapError({ domid, refs }: MapRequest, index: number, status: number): Error {
  if (status !== GNTST_no_space) {
    return new GrantMapError({ index, ref: refs[index]!, status: gntstName(status) });
  }
  return new SysError({
    call: 'GNTTABOP_map_grant_ref (GNTST_no_space)',
    errnoName: 'ENOMEM',
    context: `mapping ${refs.length} grants of domain ${domid}, with maptrack entries for ${index}`,
    remedy: NO_MAPTRACK_REMEDY,
  });
}

interface MappedWindow {
  readonly domid: DomId;
  readonly writable: boolean;
  readonly window: WindowRef & { readonly areas: number };
  readonly farewell: Farewell | undefined;
}

class GuestForeignMapping implements ForeignMapping {
  readonly domid: DomId;
  readonly pages: number;
  readonly writable: boolean;
  readonly areas: number;
  readonly #foreign: GuestForeign;
  readonly #window: WindowRef;
  #farewell: Farewell | undefined;
  /** Made when first asked for: a backend whose output never reads a buffer needs no view of it. */
  #bytes: Uint8Array | undefined;
  #viewed = false;
  #closed = false;
  /** The unmapping under way or done; a failed one can be tried again. */
  #unmapped: Promise<void> | undefined;

  constructor(foreign: GuestForeign, { domid, writable, window, farewell }: MappedWindow) {
    this.#foreign = foreign;
    this.domid = domid;
    this.pages = window.pages;
    this.areas = window.areas;
    this.writable = writable;
    this.#window = window;
    this.#farewell = farewell;
  }

  get bytes(): Uint8Array {
    assert(!this.#closed, 'use of an unmapped mapping');
    this.#viewed = true;
    this.#bytes ??= this.#foreign.view(this.#window);
    return this.#bytes;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.sayFarewell();
    this.#closed = true;
    this.#bytes = undefined;
    this.#unmapped ??= this.#unmap();
    return this.#unmapped;
  }

  sayFarewell(): void {
    const farewell = this.#farewell;
    this.#farewell = undefined;
    if (farewell === undefined) return;
    this.bytes[farewell.byte] = 0;
    farewell.channel.notify();
  }

  async #unmap(): Promise<void> {
    try {
      await this.#foreign.unmap(this, { window: this.#window, viewed: this.#viewed });
    } catch (error) {
      this.#unmapped = undefined;
      throw error;
    }
  }
}
