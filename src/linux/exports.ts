// Others' pages as dma-bufs of this host (EXP_FROM_REFS of xen/gntdev.h): the kernel maps the grants by
// itself and unmaps them when the last user of the dma-buf is gone.
//
// Invariants:
// - Every export has an open gntdev of its own. EXP_WAIT_RELEASED looks buffers up by the number of a file
//   descriptor, within one open file: so it can only mean ours, whoever has got the number since.
// - Released is asked with a wait of 0 ms, and only once our descriptor is closed: it never waits.
// - What this host can never do is found out once, and refused without a system call from then on.

import assert from 'node:assert/strict';
import {
  GNTDEV_DMA_FLAG_COHERENT,
  GNTDEV_DMA_FLAG_WC,
  IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS,
  IOCTL_GNTDEV_DMABUF_EXP_WAIT_RELEASED,
  ioctlGntdevDmabufExpFromRefs,
  ioctlGntdevDmabufExpWaitReleased,
} from '../abi/gntdev.ts';
import { close } from '../posix/libc.ts';
import { SysError } from '../runtime/errors.ts';
import type {
  Caching,
  ExportedRefs,
  ExportRequest,
  ForeignMapping,
  MapRequest,
} from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import type { Contiguity } from '../xen/memory.ts';
import { unsupported } from '../xen/unsupported.ts';
import { attemptAll } from './attempt-all.ts';
import { type DeviceFile, GNTDEV, type OpenDevice } from './device.ts';
import { LIMIT_REMEDY } from './gntdev.ts';
import type { GuestType } from './kernel-facts.ts';

export const EXPORT_CALL = 'ioctl IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS';

const FLAGS: Readonly<Record<Caching, number>> = {
  cached: 0,
  'write-combined': GNTDEV_DMA_FLAG_WC,
  coherent: GNTDEV_DMA_FLAG_COHERENT,
};

export const NO_DMABUF_REMEDY =
  'a kernel with CONFIG_XEN_GNTDEV_DMABUF has it; without it grants are mapped, which shows the same pages';
export const NO_DMABUF_REASON = 'this kernel makes no dma-bufs of grants';
export const PV_REASON =
  'the kernel makes no dma-bufs of grants in a PV domain, whose page tables name machine frames';
const TRANSLATED_REASON =
  'the grants can be mapped, and yet the kernel makes no dma-buf of them: it asks Xen for a mapping for ' +
  'devices (GNTMAP_device_map), which a translated domain does not get';
const MAP_REMEDY = 'grants are mapped instead, which shows the same pages';

/**
 * The frames are wherever the guest has them. WC and COHERENT make the kernel take consecutive addresses
 * of ours for them (dma_alloc), if it is built with CONFIG_XEN_GRANT_DMA_ALLOC, which it does not tell.
 */
const SCATTERED: Contiguity = { kind: 'none', proof: "the guest's own frames" };

export interface ExporterParts {
  readonly open: OpenDevice;
  /** Maps grants for the processor: how a refusal is explained. */
  readonly map: (request: MapRequest) => Promise<ForeignMapping>;
  readonly guestType: GuestType | undefined;
  /** Grants that one request may name. */
  readonly limit: number;
}

export class GrantExporter implements Disposable {
  readonly #parts: ExporterParts;
  readonly #live = new Set<ExportedDmaBuf>();
  /** Why this host never exports, once that is known. */
  #never: SysError | undefined;

  constructor(parts: ExporterParts) {
    this.#parts = parts;
  }

  /** As `ForeignMemory.export`. */
  async export(request: ExportRequest): Promise<ExportedRefs> {
    assert(request.refs.length > 0, 'an export of no grants');
    if (this.#never !== undefined) throw this.#never;
    this.#checkCount(request);
    const exported = this.#tryExport(request);
    if (exported !== undefined) return exported;
    if (this.#parts.guestType === 'PV') throw this.#remember(PV_REASON, MAP_REMEDY);
    await this.#mapOnce(request);
    // The grants are good. What made it fail may have been a shortage that is over, so once more.
    const again = this.#tryExport(request);
    if (again !== undefined) return again;
    throw this.#remember(TRANSLATED_REASON, MAP_REMEDY);
  }

  /** Closes all descriptors of ours; the kernel unmaps each buffer when its last user is gone. */
  [Symbol.dispose](): void {
    attemptAll(this.#live, (exported) => exported.abandon(), 'closing dma-bufs of grants');
  }

  #checkCount({ domid, refs }: ExportRequest): void {
    if (refs.length <= this.#parts.limit) return;
    const context = exporting(domid, refs.length);
    throw new SysError({ call: EXPORT_CALL, errnoName: 'EINVAL', context, remedy: LIMIT_REMEDY });
  }

  /** The dma-buf; undefined when the kernel refuses one of the grants, or all such requests (EINVAL). */
  #tryExport(request: ExportRequest): ExportedDmaBuf | undefined {
    const device = this.#parts.open(GNTDEV);
    try {
      const fd = exportRefs(device, request);
      const exported = new ExportedDmaBuf({
        device,
        fd,
        request,
        onEnd: () => this.#live.delete(exported),
      });
      this.#live.add(exported);
      return exported;
    } catch (error) {
      device[Symbol.dispose]();
      if (!(error instanceof SysError)) throw error;
      if (error.errnoName === 'ENOTTY') {
        throw this.#remember(NO_DMABUF_REASON, NO_DMABUF_REMEDY);
      }
      if (error.errnoName !== 'EINVAL') throw error;
      return undefined;
    }
  }

  /** @throws GrantMapError for the first grant that is bad, SysError when there is no room */
  async #mapOnce({ domid, refs }: ExportRequest): Promise<void> {
    const mapping = await this.#parts.map({ domid, refs, writable: true });
    await mapping[Symbol.asyncDispose]();
  }

  #remember(reason: string, remedy: string): SysError {
    this.#never = unsupported(EXPORT_CALL, reason, remedy);
    return this.#never;
  }
}

function exporting(domid: DomId, count: number): string {
  return `making a dma-buf of ${count} grants of domain ${domid}`;
}

/** One attempt. @returns the file descriptor of the dma-buf @throws SysError */
export function exportRefs(device: DeviceFile, { domid, refs, caching }: ExportRequest): number {
  const argument = new Uint8Array(ioctlGntdevDmabufExpFromRefs.sizeWith(refs.length));
  const view = new DataView(argument.buffer);
  const { fields } = ioctlGntdevDmabufExpFromRefs;
  fields.flags.set(view, 0, FLAGS[caching]);
  fields.count.set(view, 0, refs.length);
  fields.domid.set(view, 0, domid);
  for (const [i, ref] of refs.entries()) fields.refs.setAt(view, 0, i, ref);
  const name = 'IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS';
  device.ioctl(
    { name, number: IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS, argument },
    { context: exporting(domid, refs.length) },
  );
  return fields.fd.get(view, 0);
}

interface ExportedParts {
  /** The open gntdev of this export alone; owned. */
  readonly device: DeviceFile;
  readonly fd: number;
  readonly request: ExportRequest;
  readonly onEnd: () => void;
}

class ExportedDmaBuf implements ExportedRefs {
  readonly domid: DomId;
  readonly pages: number;
  readonly contiguity = SCATTERED;
  readonly #device: DeviceFile;
  readonly #number: number;
  readonly #onEnd: () => void;
  #state: 'open' | 'closed' | 'released' = 'open';

  constructor({ device, fd, request, onEnd }: ExportedParts) {
    this.domid = request.domid;
    this.pages = request.refs.length;
    this.#device = device;
    this.#number = fd;
    this.#onEnd = onEnd;
  }

  /** Undefined once closed. */
  get fd(): number | undefined {
    return this.#state === 'open' ? this.#number : undefined;
  }

  close(): void {
    if (this.#state !== 'open') return;
    this.#state = 'closed';
    close(this.#number, { context: `closing a dma-buf of ${this.pages} grants` });
  }

  async released(): Promise<boolean> {
    if (this.#state === 'closed' && this.#isGone()) this.#end();
    return this.#state === 'released';
  }

  /** Gives up what is ours without asking whether others are done: for the end of the domain. */
  abandon(): void {
    try {
      this.close();
    } finally {
      this.#end();
    }
  }

  #end(): void {
    this.#state = 'released';
    this.#onEnd();
    this.#device[Symbol.dispose]();
  }

  /**
   * ENOENT means that the buffer is gone already. ENOMEM says nothing about it (and the kernel may then
   * have lost count and never let go, which later answers show).
   */
  #isGone(): boolean {
    const argument = new Uint8Array(ioctlGntdevDmabufExpWaitReleased.size);
    const wait = { fd: this.#number, wait_to_ms: 0 };
    ioctlGntdevDmabufExpWaitReleased.write(new DataView(argument.buffer), 0, wait);
    const name = 'IOCTL_GNTDEV_DMABUF_EXP_WAIT_RELEASED';
    try {
      this.#device.ioctl(
        { name, number: IOCTL_GNTDEV_DMABUF_EXP_WAIT_RELEASED, argument },
        { context: `asking for the end of a dma-buf of ${this.pages} grants` },
      );
      return true;
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      if (error.errnoName === 'ENOENT') return true;
      if (error.errnoName === 'ETIMEDOUT' || error.errnoName === 'ENOMEM') return false;
      throw error;
    }
  }
}
