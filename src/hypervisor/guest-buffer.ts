// Memory of a domain that others may use: machine frames of its own, in one view, which may be lent to
// other domains and used by devices of this one.
//
// Invariants: a frame goes back to where it came from only when the buffer is freed, no grant of it is left
// and no device attached; how the pages lie is read off the frames, never claimed; the view is revoked before any frame goes.

import assert from 'node:assert/strict';
import type { DomId } from '../xen/ids.ts';
import type { Contiguity, GivenBack, LocalBuffer } from '../xen/memory.ts';
import { type Attachment, Attachments, badHandle, type DmaImporter } from './dma-buf.ts';
import type { GuestLentPages } from './guest-lending.ts';
import type { WindowRef } from './hypercalls.ts';

/** Where a buffer's frames came from. */
export interface BufferHome {
  readonly domid: DomId;
  /** The domain is over: the hypervisor takes everything back. */
  readonly stopped: boolean;
  view(window: WindowRef): Uint8Array;
  /** Revokes the view. */
  closeView(window: WindowRef, seen: { viewed: boolean }): Promise<void>;
  /** Takes frames back that nobody but us can reach. */
  takeBack(frames: Uint32Array): Promise<void>;
  /** Every frame of the buffer is back. */
  forget(buffer: GuestBuffer): void;
}

export interface BufferOptions {
  readonly home: BufferHome;
  readonly frames: Uint32Array;
  /** Over all frames, in their order. */
  readonly window: WindowRef;
  readonly contiguity: Contiguity;
}

export class GuestBuffer implements LocalBuffer {
  readonly domid: DomId;
  readonly pages: number;
  readonly contiguity: Contiguity;
  readonly fd = undefined;
  /** In the order of the pages. */
  readonly frames: Uint32Array;
  /** What is lent of it. */
  readonly loans = new Set<GuestLentPages>();
  readonly #attachments: Attachments;
  readonly #home: BufferHome;
  readonly #window: WindowRef;
  /** Frames that have not gone back. */
  #kept: Uint32Array;
  #bytes: Uint8Array | undefined;
  #viewClosed: Promise<void> | undefined;

  constructor({ home, frames, window, contiguity }: BufferOptions) {
    this.#home = home;
    this.domid = home.domid;
    this.pages = frames.length;
    this.frames = frames;
    this.contiguity = contiguity;
    this.#window = window;
    this.#kept = frames;
    this.#attachments = new Attachments(frames);
  }

  /** @throws AssertionError once the buffer is freed */
  get bytes(): Uint8Array {
    assert(!this.freed, 'use of a buffer that was freed');
    this.#bytes ??= this.#home.view(this.#window);
    return this.#bytes;
  }

  get freed(): boolean {
    return this.#viewClosed !== undefined;
  }

  /** Devices that use it. */
  get attached(): number {
    return this.#attachments.count;
  }

  /** A device of this domain imports the buffer. @throws SysError EBADF once it is freed */
  attach(device: DmaImporter): Attachment {
    if (this.freed) throw badHandle(device);
    return this.#attachments.add(device);
  }

  /**
   * Ends what is lent of it, too. A page that another domain still maps is held, and every page is while a
   * device is attached.
   */
  async free(): Promise<GivenBack> {
    this.#viewClosed ??= this.#closeView();
    for (const loan of [...this.loans]) loan.endNow();
    const held = this.#heldFrames();
    const back = this.#kept.filter((frame) => !held.has(frame));
    this.#kept = this.#kept.filter((frame) => held.has(frame));
    await this.#viewClosed;
    if (!this.#home.stopped) {
      if (back.length > 0) await this.#home.takeBack(back);
      if (held.size === 0) this.#home.forget(this);
    }
    const evidence = this.attached > 0 ? 'device attachments' : 'grant table';
    return { heldPages: held.size, evidence };
  }

  /** The domain is over: its devices have nothing any more. */
  stop(): void {
    this.#attachments.detachAll();
  }

  /** Frames of which a grant has not ended, and those that devices use. */
  #heldFrames(): Set<number> {
    if (this.#home.stopped) return new Set();
    if (this.attached > 0) return new Set(this.#kept);
    return new Set([...this.loans].flatMap(({ granted }) => granted.map(({ frame }) => frame)));
  }

  async #closeView(): Promise<void> {
    const viewed = this.#bytes !== undefined;
    this.#bytes = undefined;
    if (!this.#home.stopped) await this.#home.closeView(this.#window, { viewed });
  }
}
