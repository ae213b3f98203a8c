// What a guest makes of memory that the driver domain lends it: it maps what is named in its directory, whether or not
// it was told that it may, draws into it, and unmaps it when it likes, or never. Each of these is a move.
//
// What it checks: memory is zero when it comes; and what is live can be mapped.

import { pageDirectory } from '../../src/abi/displif.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { type ForeignMapping, GrantMapError, type SharedPages } from '../../src/xen/domain.ts';
import type { DomId, Gref } from '../../src/xen/ids.ts';
import { offerPageDirectory } from '../../src/xen/page-directory.ts';
import type { BufferName } from './acts.ts';
import type { Move } from './chosen-runtime.ts';

const { gref } = pageDirectory.fields;

export interface BorrowerOptions {
  /** The guest's, for the names of moves. */
  readonly name: string;
  /** What it draws, in every byte. */
  readonly colour: number;
  readonly domain: GuestDomain;
  readonly backend: DomId;
  /** Whether a buffer can be mapped for certain. */
  readonly isLive: (buffer: BufferName) => boolean;
  readonly complain: (what: string) => void;
}

export class BorrowedMemory {
  readonly #options: BorrowerOptions;
  readonly #directory: SharedPages;
  readonly #view: DataView;
  /** The buffer that the directory was laid out for last. */
  #asked: BufferName = 'it';
  #mapped: { readonly buffer: BufferName; readonly mapping: ForeignMapping } | undefined;

  private constructor(options: BorrowerOptions, directory: SharedPages) {
    this.#options = options;
    this.#directory = directory;
    const { buffer, byteOffset, byteLength } = directory.bytes;
    this.#view = new DataView(buffer, byteOffset, byteLength);
  }

  /** Lays out a directory for one page. @throws SysError */
  static async start(options: BorrowerOptions): Promise<BorrowedMemory> {
    const { domain, backend } = options;
    const directory = await offerPageDirectory(domain.grants, { domid: backend, pages: 1 });
    return new BorrowedMemory(options, directory);
  }

  /** Empties the directory for a buffer that is about to be asked for. @returns where the directory is */
  ask(buffer: BufferName): Gref {
    this.#asked = buffer;
    this.#empty();
    return this.#directory.refs[0]!;
  }

  /** Whether the guest maps this buffer now. */
  maps(buffer: BufferName): boolean {
    return this.#mapped?.buffer === buffer;
  }

  moves(): Move[] {
    const { name } = this.#options;
    if (this.#mapped !== undefined) {
      return [{ name: `${name} unmaps what it borrowed`, run: () => void this.#unmap() }];
    }
    if (this.#named === 0) return [];
    return [{ name: `${name} maps what its directory names`, run: () => void this.#map() }];
  }

  describe(): string {
    const named = this.#named === 0 ? 'empty' : 'filled';
    const content = this.#mapped && `${this.#mapped.buffer} with ${this.#mapped.mapping.bytes[0]}`;
    return `directory ${named} for ${this.#asked}, maps ${content ?? 'nothing'}`;
  }

  async #map(): Promise<void> {
    const { colour, domain, backend, isLive, complain } = this.#options;
    const refs = [this.#named];
    const buffer = this.#asked;
    this.#empty();
    try {
      const mapping = await domain.foreign.map({ domid: backend, refs, writable: true });
      this.#mapped = { buffer, mapping };
      if (mapping.bytes.some((byte) => byte !== 0)) complain('borrowed memory is not zero');
      mapping.bytes.fill(colour);
    } catch (error) {
      if (!(error instanceof GrantMapError)) complain(`mapping failed: ${String(error)}`);
      if (isLive(buffer)) complain(`a live buffer cannot be mapped: ${String(error)}`);
    }
  }

  async #unmap(): Promise<void> {
    const { mapping } = this.#mapped!;
    this.#mapped = undefined;
    await mapping[Symbol.asyncDispose]();
  }

  get #named(): Gref {
    return gref.getAt(this.#view, 0, 0) as Gref;
  }

  /** As a directory is before the backend fills it. */
  #empty(): void {
    gref.setAt(this.#view, 0, 0, 0);
  }
}
