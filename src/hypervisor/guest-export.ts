// Another domain's pages as a dma-buf, as gntdev makes them of grants (EXP_FROM_REFS): for devices of this
// domain, without a view for its processor.
//
// Invariants: the grants stay mapped while the handle is open or a device attached, and are unmapped with
// the last of these at once; what has been released never comes back.

import type { ExportedRefs } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import type { Contiguity } from '../xen/memory.ts';
import { type Attachment, Attachments, badHandle, type DmaImporter } from './dma-buf.ts';

export interface ExportOptions {
  readonly domid: DomId;
  /** The granted frames, as devices address them. */
  readonly frames: Uint32Array;
  readonly contiguity: Contiguity;
  /** Unmaps the grants; called again only when it failed. */
  readonly unmap: () => Promise<void>;
}

export class GuestExport implements ExportedRefs {
  readonly domid: DomId;
  readonly pages: number;
  readonly contiguity: Contiguity;
  readonly fd = undefined;
  /** Of the other domain, in the order of the refs. */
  readonly frames: Uint32Array;
  readonly #attachments: Attachments;
  readonly #unmap: () => Promise<void>;
  #open = true;
  #unmapped: Promise<void> | undefined;

  constructor({ domid, frames, contiguity, unmap }: ExportOptions) {
    this.domid = domid;
    this.pages = frames.length;
    this.frames = frames;
    this.contiguity = contiguity;
    this.#attachments = new Attachments(frames, () => this.#unmapUnused());
    this.#unmap = unmap;
  }

  /** Devices that use it. */
  get attached(): number {
    return this.#attachments.count;
  }

  /** A device of this domain imports the buffer. @throws SysError EBADF once our handle is closed */
  attach(device: DmaImporter): Attachment {
    if (!this.#open) throw badHandle(device);
    return this.#attachments.add(device);
  }

  close(): void {
    this.#open = false;
    this.#unmapUnused();
  }

  async released(): Promise<boolean> {
    this.#unmapUnused();
    if (!this.#unmapped) return false;
    await this.#unmapped;
    return true;
  }

  /** Ends it whoever uses it: the domain is closing. */
  async end(): Promise<void> {
    this.#attachments.detachAll();
    this.close();
    await this.#unmapped;
  }

  /** The domain is over, and everything of it unmapped. */
  stop(): void {
    this.#open = false;
    this.#unmapped ??= Promise.resolve();
    this.#attachments.detachAll();
  }

  #unmapUnused(): void {
    if (this.#open || this.#attachments.count > 0 || this.#unmapped) return;
    this.#unmapped = this.#unmap();
    // Whoever asks `released` meanwhile learns of a failure, and whoever asks next tries again.
    this.#unmapped.catch(() => {
      this.#unmapped = undefined;
    });
  }
}
