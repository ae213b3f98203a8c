// Directories of pages, displif's and those of shares: chains of any shape, some of whose pages cannot be mapped
// or change at each look.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { grefsPerDirectoryPage } from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { readDirectory } from '../../src/share/grant-directory.ts';
import { type ForeignMapping, type ForeignMemory, GrantMapError } from '../../src/xen/domain.ts';
import { domId, gref } from '../../src/xen/ids.ts';
import {
  directoryPages,
  fillPageDirectory,
  offeredRefs,
  readPageDirectory,
} from '../../src/xen/page-directory.ts';
import { type Edits, fuzzer, orRefused, orRefusedLater, u32 } from './fuzzer.ts';

const GUEST = domId(1);
const FIRST_REF = 100;
const PAGE_WORDS = PAGE_SIZE / 4;

/** A directory page: where it leads, what it says besides good references, and whether it can be mapped. */
interface DirectoryPage {
  /** The number of the page that follows, or any reference. */
  readonly next: number;
  readonly nextIsPage: boolean;
  readonly words: Edits;
  readonly mappable: boolean;
}

const page: fc.Arbitrary<DirectoryPage> = fc.record({
  next: fc.oneof(fc.nat(4), u32),
  nextIsPage: fc.nat(5).map((roll) => roll > 0),
  words: fc.array(fc.tuple(fc.integer({ min: 1, max: PAGE_WORDS - 1 }), u32), { maxLength: 2 }),
  mappable: fc.nat(9).map((roll) => roll > 0),
});
/** Chains that lead from page to page, but for what `page` says otherwise. */
const pages = fc.array(page, { minLength: 1, maxLength: 4 });

/** A guest's pages by reference; every one is unmapped in the end, and none is looked at after that. */
class GuestPages implements Pick<ForeignMemory, 'map'> {
  readonly contents: Uint32Array[];
  mapped = 0;
  mappings = 0;
  readonly #pages: readonly DirectoryPage[];
  /** Whether pages turn to garbage as soon as they have been copied. */
  readonly #fickle: boolean;

  constructor(described: readonly DirectoryPage[], { fickle }: { fickle: boolean }) {
    this.#pages = described;
    this.#fickle = fickle;
    this.contents = described.map(({ next, nextIsPage, words }, index) => {
      const content = new Uint32Array(PAGE_WORDS).map((_, at) => 1000 * (index + 1) + at);
      content[0] = nextIsPage ? this.#refOf(next) : next;
      for (const [at, value] of words) content[at] = value;
      return content;
    });
  }

  async map({ refs }: Parameters<ForeignMemory['map']>[0]): Promise<ForeignMapping> {
    const found = refs.map((ref, index) => {
      const at = ref - FIRST_REF;
      if (this.#pages[at]?.mappable) return this.contents[at]!;
      throw new GrantMapError({ index, ref, status: 'GNTST_bad_gntref' });
    });
    this.mapped += refs.length;
    this.mappings += 1;
    const bytes = new Uint8Array(refs.length * PAGE_SIZE);
    found.forEach((content, index) => {
      bytes.set(new Uint8Array(content.buffer), index * PAGE_SIZE);
    });
    const release = async () => {
      this.mapped -= refs.length;
      // What the mapping shows afterwards is somebody else's.
      bytes.fill(0xff);
      if (this.#fickle) for (const content of found) content.fill(0xffff_ffff);
    };
    return {
      domid: GUEST,
      pages: refs.length,
      writable: true,
      areas: 1,
      bytes,
      [Symbol.asyncDispose]: release,
    };
  }

  #refOf(next: number): number {
    return next === 0 ? 0 : FIRST_REF + Math.min(next, this.#pages.length);
  }
}

/** What the specification makes of the chain: its references, or undefined where it is refused. */
function modelRefs(guest: GuestPages, described: readonly DirectoryPage[], count: number) {
  const refs: number[] = [];
  let at = FIRST_REF;
  for (let left = directoryPages(count); left > 0; left--) {
    const content = guest.contents[at - FIRST_REF];
    if (!content || !described[at - FIRST_REF]?.mappable) return undefined;
    refs.push(...content.slice(1, 1 + Math.min(count - refs.length, grefsPerDirectoryPage)));
    at = content[0]!;
  }
  return at === 0 && !refs.includes(0) ? refs : undefined;
}

/** The references are exactly those of the specification, or there are none. */
export const pageDirectories = fuzzer({
  name: 'page-directories',
  parsers: ['xen/page-directory.ts'],
  runs: 400,
  input: fc.record({
    pages,
    count: fc.oneof(
      fc.integer({ min: 1, max: 3 * grefsPerDirectoryPage }),
      fc.constantFrom(1, 1022, 1023, 1024, 2046, 2047, 3069),
    ),
    fickle: fc.boolean(),
    ends: fc.boolean(),
  }),
  check: async ({ pages: described, count, fickle, ends }) => {
    // Every other chain ends where it should, so that good ones are common.
    const needed = directoryPages(count);
    const shaped = ends
      ? described.map((each, index) => ({
          ...each,
          nextIsPage: true,
          next: index + 1 < needed ? index + 1 : 0,
        }))
      : described;
    const guest = new GuestPages(shaped, { fickle });
    const expected = modelRefs(guest, shaped, count);
    const request = { domid: GUEST, first: gref(FIRST_REF), pages: count };
    const refs = await orRefusedLater(() => readPageDirectory(guest, request), GrantMapError);
    assert.equal(guest.mapped, 0, 'a directory page stays mapped');
    assert(guest.mappings <= needed, 'more pages were walked than the size needs');
    if (!fickle || expected === undefined) assert.deepEqual(refs, expected);
    else if (refs) assert.deepEqual(refs, expected);
    const filling = new GuestPages(shaped, { fickle });
    const given = Array.from({ length: count }, (_, index) => gref(index + 1));
    await orRefusedLater(
      () => fillPageDirectory(filling, { domid: GUEST, first: gref(FIRST_REF), refs: given }),
      GrantMapError,
    );
    assert.equal(filling.mapped, 0);
    assert(filling.mappings <= needed);
    offered(guest, count);
  },
});

/** The same pages as a frontend finds them that a backend has filled. */
function offered(guest: GuestPages, count: number): void {
  const bytes = new Uint8Array(directoryPages(count) * PAGE_SIZE);
  guest.contents.forEach((content, index) => {
    if (index < directoryPages(count)) {
      bytes.set(new Uint8Array(content.buffer), index * PAGE_SIZE);
    }
  });
  const shared = { bytes } as Parameters<typeof offeredRefs>[0];
  const refs = orRefused(() => offeredRefs(shared, count));
  assert(refs === undefined || (refs.length === count && !refs.includes(gref(0))));
}

/** A share's directory of two levels. */
export const shareDirectories = fuzzer({
  name: 'share-directories',
  parsers: ['share/grant-directory.ts'],
  runs: 300,
  input: fc.record({
    leaves: fc.array(fc.oneof(fc.nat(3), u32), { maxLength: 4 }),
    pages,
    count: fc.integer({ min: 1, max: 3000 }),
  }),
  check: async ({ leaves, pages: described, count }) => {
    const guest = new GuestPages(described, { fickle: false });
    const first = guest.contents[0]!;
    leaves.forEach((leaf, index) => {
      first[index] = leaf < 4 ? FIRST_REF + leaf : leaf;
    });
    const request = { domid: GUEST, ref: gref(FIRST_REF), pages: count };
    const refs = await orRefusedLater(() => readDirectory(guest, request), GrantMapError);
    assert.equal(guest.mapped, 0);
    assert(refs === undefined || (refs.length === count && refs.every((ref) => ref > 0)));
  },
});
