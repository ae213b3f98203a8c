// A buffer of this host's drivers: one dma-buf or several in a row, with a view of our own. Pools, dma-heaps
// and DRM make these; only these can be lent to a domain (IMP_TO_REFS takes a dma-buf, linux-libc-dev's
// xen/gntdev.h).
//
// Invariants:
// - Our view is made when first asked for, and revoked before anything is given back.
// - What is lent is not given back: while somebody holds the buffer, free() only says so.
// - One attempt to give back at a time; once nothing is held, no other follows.

import assert from 'node:assert/strict';
import type { Contiguity, GivenBack, LocalBuffer } from '../xen/memory.ts';

/** One dma-buf of a buffer. */
export interface DmaBufPart {
  /** Open until the buffer is given back. */
  readonly fd: number;
  readonly pages: number;
}

/** A view that can be revoked: a `Mapping`, or something that does more around one. */
export interface BufferView extends Disposable {
  readonly bytes: Uint8Array;
}

export interface LinuxBufferParts {
  /** What the buffer is made of, in the order of its pages. */
  readonly dmaBufs: readonly DmaBufPart[];
  readonly contiguity: Contiguity;
  /** Makes our view of all pages; asked at most once. @throws SysError where the driver gives none */
  readonly view: () => BufferView;
  /**
   * Gives the memory up, as far as it can be had: closes the file descriptors (once) and says what others
   * still use. Asked after the view is revoked, and again until nothing is held.
   */
  readonly giveBack: () => Promise<GivenBack>;
}

const LENT = 'lent';

export class LinuxBuffer implements LocalBuffer {
  readonly pages: number;
  readonly contiguity: Contiguity;
  readonly dmaBufs: readonly DmaBufPart[];
  readonly #makeView: () => BufferView;
  readonly #giveBack: () => Promise<GivenBack>;
  #view: BufferView | undefined;
  #freeing = false;
  #attempt: Promise<GivenBack> | undefined;
  #gone: GivenBack | undefined;
  #holds = 0;

  constructor({ dmaBufs, contiguity, view, giveBack }: LinuxBufferParts) {
    assert(dmaBufs.length > 0, 'a buffer of no dma-bufs');
    this.dmaBufs = dmaBufs;
    this.pages = dmaBufs.reduce((sum, { pages }) => sum + pages, 0);
    this.contiguity = contiguity;
    this.#makeView = view;
    this.#giveBack = giveBack;
  }

  /** Undefined when the buffer is made of several dma-bufs, or on its way back. */
  get fd(): number | undefined {
    if (this.#freeing || this.dmaBufs.length > 1) return undefined;
    return this.dmaBufs[0]?.fd;
  }

  get bytes(): Uint8Array {
    assert(!this.#freeing, 'use of a freed buffer');
    this.#view ??= this.#makeView();
    return this.#view.bytes;
  }

  /** Whether it was given up, whoever still has it. */
  get freed(): boolean {
    return this.#freeing;
  }

  /** Whether all of it was given back. */
  get gone(): boolean {
    return this.#gone !== undefined;
  }

  /** Keeps the memory from being given back until the result is disposed; disposing twice is once. */
  hold(): Disposable {
    assert(!this.#freeing, 'a hold on a freed buffer');
    this.#holds += 1;
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (held) this.#holds -= 1;
        held = false;
      },
    };
  }

  async free(): Promise<GivenBack> {
    this.#freeing = true;
    this.#view?.[Symbol.dispose]();
    this.#view = undefined;
    if (this.#gone !== undefined) return this.#gone;
    if (this.#holds > 0) return { heldPages: this.pages, evidence: LENT };
    this.#attempt ??= this.#tryGiveBack();
    return this.#attempt;
  }

  async #tryGiveBack(): Promise<GivenBack> {
    try {
      const result = await this.#giveBack();
      if (result.heldPages === 0) this.#gone = result;
      return result;
    } finally {
      this.#attempt = undefined;
    }
  }
}
