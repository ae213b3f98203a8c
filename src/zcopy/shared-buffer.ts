// A buffer that two domains look at: another domain's pages in ours (refs to buffer), or ours in another
// domain (buffer to refs). One life, whatever it is made of (release.ts).
//
// Invariants:
// - `bytes` begins at the data offset and has exactly the bytes that were asked for, however much more the
//   last page has; after the release it cannot be had any more.
// - Giving back goes in the order in which it is safe: readers, then the dma-buf that drivers may hold, then
//   the mapping; or readers, then the other domain's access, then the memory itself.

import assert from 'node:assert/strict';
import type { Runtime } from '../runtime/runtime.ts';
import type { ExportedRefs, ForeignMapping, LentPages, SharedPages } from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import type { Contiguity, DmaBuf, LocalBuffer } from '../xen/memory.ts';
import { Readers } from './readers.ts';
import {
  type Holder,
  Release,
  type ReleaseOutcome,
  type ReleaseState,
  type ReleaseStep,
  type ReleaseWait,
} from './release.ts';

/** Which part of the pages is the buffer, in bytes. */
export interface Extent {
  readonly dataOffset: number;
  readonly byteLength: number;
}

export interface SharedBufferParts {
  readonly runtime: Runtime;
  /** The other domain. */
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly extent: Extent;
  /** All bytes of all pages, not copied. */
  readonly view: () => Uint8Array;
  readonly memory: DmaBuf | undefined;
  /** Why there is no dma-buf, where one was wanted. */
  readonly withoutDmaBuf?: string;
  /** After the readers. */
  readonly steps: readonly ReleaseStep[];
}

export class SharedBuffer {
  readonly domid: DomId;
  readonly refs: readonly Gref[];
  readonly dataOffset: number;
  readonly byteLength: number;
  /** For drivers of this host; undefined where the pages are only mapped. */
  readonly memory: DmaBuf | undefined;
  /** Why `memory` is undefined although a dma-buf was wanted. */
  readonly withoutDmaBuf: string | undefined;
  readonly #view: () => Uint8Array;
  readonly #readers: Readers;
  readonly #release: Release;

  constructor(parts: SharedBufferParts) {
    const { runtime, domid, refs, extent, view, memory, steps } = parts;
    this.domid = domid;
    this.refs = refs;
    this.dataOffset = extent.dataOffset;
    this.byteLength = extent.byteLength;
    this.memory = memory;
    this.withoutDmaBuf = parts.withoutDmaBuf;
    this.#view = view;
    this.#readers = new Readers(refs.length);
    this.#release = new Release({ runtime, steps: [this.#readers, ...steps] });
  }

  get pages(): number {
    return this.refs.length;
  }

  get contiguity(): Contiguity {
    return this.memory?.contiguity ?? { kind: 'none', proof: 'grants, mapped page by page' };
  }

  /** The buffer's bytes, not copied. @throws AssertionError once it is released */
  get bytes(): Uint8Array {
    assert(this.state !== 'released', 'use of a released buffer');
    return this.#view().subarray(this.dataOffset, this.dataOffset + this.byteLength);
  }

  get state(): ReleaseState {
    return this.#release.state;
  }

  /** Who is waited for while it is being released. */
  get holders(): readonly Holder[] {
    return this.#release.holders;
  }

  /** Resolves when everything of it is given back; never rejects. */
  get released(): Promise<void> {
    return this.#release.released;
  }

  /** Something on our side may read the buffer until `done` settles; a release waits for that. */
  readBy(done: Promise<void>): void {
    this.#readers.add(done);
  }

  /** Does not wait for readers any more: they see zeros from the release on. */
  abandonReaders(): void {
    this.#readers.abandon();
  }

  /** Gives everything back; see `Release.release`. */
  release(wait?: ReleaseWait): Promise<ReleaseOutcome> {
    return this.#release.release(wait);
  }

  /** Tries a release that is under way again at once. */
  hurry(): void {
    this.#release.hurry();
  }
}

/** Closes our handle of a dma-buf and waits until drivers have let go of theirs. */
export function exportStep(exported: ExportedRefs): ReleaseStep {
  const holder = {
    who: 'whoever imported the dma-buf',
    pages: exported.pages,
    evidence: 'the dma-buf is not released',
  };
  return {
    holder,
    attempt: async () => {
      exported.close();
      return (await exported.released()) ? undefined : holder;
    },
  };
}

/** Unmaps another domain's pages. */
export function unmapStep(mapping: ForeignMapping): ReleaseStep {
  return {
    holder: { who: 'our own mapping', pages: mapping.pages, evidence: 'is being unmapped' },
    attempt: async () => {
      await mapping[Symbol.asyncDispose]();
      return undefined;
    },
  };
}

/** Ends the other domain's access to pages of ours. */
export function endAccessStep(lent: LentPages): ReleaseStep {
  const who = `domain ${lent.domid}`;
  return {
    holder: { who, pages: lent.refs.length, evidence: 'access is being ended' },
    attempt: async () => {
      const { heldPages, evidence } = await lent.end();
      return heldPages === 0 ? undefined : { who, pages: heldPages, evidence };
    },
  };
}

/** Ends the other domain's access to pages that were shared with it. */
export function endSharedStep(shared: SharedPages): ReleaseStep {
  const who = `domain ${shared.domid}`;
  return {
    holder: { who, pages: shared.refs.length, evidence: 'access is being ended' },
    attempt: async () => {
      const { heldPages, evidence } = await shared.end();
      return heldPages === 0 ? undefined : { who, pages: heldPages, evidence };
    },
  };
}

/** Gives memory of ours up, which `who` may hold. */
export function freeStep(memory: LocalBuffer, who: string): ReleaseStep {
  return {
    holder: { who: 'our own memory', pages: memory.pages, evidence: 'is being freed' },
    attempt: async () => {
      const { heldPages, evidence } = await memory.free();
      return heldPages === 0 ? undefined : { who, pages: heldPages, evidence };
    },
  };
}
