// Directories over pages held in a table: what a hostile guest can put into them is bytes and references,
// so that is all that is needed here; real grants are mapped in the display tests.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { ProtocolViolation } from '../../src/runtime/errors.ts';
import {
  type ForeignMapping,
  type ForeignMemory,
  GrantMapError,
  type Grants,
  type SharedPages,
} from '../../src/xen/domain.ts';
import { DOM0, domId, type Gref, gref } from '../../src/xen/ids.ts';
import {
  directoryPages,
  readPageDirectory,
  writePageDirectory,
} from '../../src/xen/page-directory.ts';

const GUEST = domId(1);

/** A guest's granted pages by reference, with a count of what is mapped now and was ever. */
class Pages implements Pick<ForeignMemory, 'map'>, Pick<Grants, 'share'> {
  readonly table = new Map<number, Uint8Array>();
  mapped = 0;
  everMapped = 0;
  readonly #firstRef: number;

  constructor(firstRef = 100) {
    this.#firstRef = firstRef;
  }

  async map({ refs, writable }: Parameters<ForeignMemory['map']>[0]): Promise<ForeignMapping> {
    assert.equal(refs.length, 1, 'one directory page at a time');
    assert.equal(writable, false, 'directories are only read');
    const bytes = this.table.get(refs[0]!);
    if (!bytes) throw new GrantMapError({ index: 0, ref: refs[0]!, status: 'GNTST_bad_gntref' });
    this.mapped++;
    this.everMapped++;
    const release = async () => {
      this.mapped--;
    };
    return { domid: GUEST, pages: 1, areas: 1, writable, bytes, [Symbol.asyncDispose]: release };
  }

  async share({ domid, pages, writable }: Parameters<Grants['share']>[0]): Promise<SharedPages> {
    const bytes = new Uint8Array(pages * PAGE_SIZE);
    const refs = Array.from({ length: pages }, (_, page) => {
      const ref = gref(this.#firstRef + this.table.size);
      this.table.set(ref, bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE));
      return ref;
    });
    const end = async () => ({ heldPages: 0, evidence: 'none' });
    return { domid, writable, refs, bytes, end, [Symbol.asyncDispose]: async () => {} };
  }
}

/** Puts a directory page of these words (next page first) at `ref`. */
function place(pages: Pages, ref: number, words: readonly number[]): void {
  const bytes = new Uint8Array(PAGE_SIZE);
  const view = new DataView(bytes.buffer);
  words.forEach((word, i) => {
    view.setUint32(i * 4, word, true);
  });
  pages.table.set(ref, bytes);
}

function numbers(length: number, first = 8): number[] {
  return Array.from({ length }, (_, i) => first + i);
}

function read(pages: Pages, first: number, count: number): Promise<Gref[]> {
  return readPageDirectory(pages, { domid: GUEST, first: gref(first), pages: count });
}

function violation(reason: string) {
  return (error: unknown) =>
    error instanceof ProtocolViolation &&
    error.reason === reason &&
    error.errnoName === 'XEN_EINVAL';
}

test('property: what was written is what is read, for any number of pages', async () => {
  const counts = fc.oneof(fc.constantFrom(1, 1022, 1023, 1024, 2046, 2047), fc.nat(5000));
  await fc.assert(
    fc.asyncProperty(counts, async (extra) => {
      const refs = numbers(extra + 1).map((number) => gref((number * 2654435761) % 2 ** 32 || 1));
      const pages = new Pages();
      const directory = await writePageDirectory(pages, { domid: DOM0, refs });
      assert.equal(directory.refs.length, directoryPages(refs.length));
      assert.equal(directory.writable, false);
      assert.deepEqual(await read(pages, directory.refs[0]!, refs.length), refs);
      assert.equal(pages.mapped, 0);
      assert.equal(pages.everMapped, directory.refs.length);
    }),
    { numRuns: 30 },
  );
});

test('a directory of a full page ends there; one more reference needs a second page', () => {
  assert.equal(directoryPages(1), 1);
  assert.equal(directoryPages(1023), 1);
  assert.equal(directoryPages(1024), 2);
  assert.equal(directoryPages(2025), 2);
  assert.equal(directoryPages(1024 * 1024), 1026);
});

test('references behind the last one are not looked at', async () => {
  const pages = new Pages();
  place(pages, 50, [0, 8, 9, 0, 0xffff_ffff]);
  assert.deepEqual(await read(pages, 50, 2), [8, 9]);
});

test('reference 0 is refused wherever it is (R6)', async () => {
  const pages = new Pages();
  place(pages, 50, [0, 8, 0, 10]);
  await assert.rejects(read(pages, 50, 3), violation('directory-gref-zero'));
  await assert.rejects(read(pages, 0, 3), violation('directory-short'));
});

test('a chain that ends early is refused, not completed with nothing (R6)', async () => {
  const pages = new Pages();
  place(pages, 50, [0, ...numbers(1023)]);
  await assert.rejects(read(pages, 50, 1024), violation('directory-short'));
});

test('a chain that goes on, or turns back on itself, is refused after the pages it needs (R6)', async () => {
  const pages = new Pages();
  place(pages, 50, [51, 8]);
  place(pages, 51, [0, 9]);
  await assert.rejects(read(pages, 50, 1), violation('directory-long'));
  assert.equal(pages.everMapped, 1);

  const cycles = new Pages();
  place(cycles, 60, [60, ...numbers(1023)]);
  place(cycles, 70, [71, ...numbers(1023)]);
  place(cycles, 71, [70, ...numbers(1023)]);
  await assert.rejects(read(cycles, 60, 3 * 1023), violation('directory-long'));
  await assert.rejects(read(cycles, 70, 4 * 1023), violation('directory-long'));
  assert.equal(cycles.everMapped, 3 + 4);
});

test('a directory page that cannot be mapped is named, and nothing stays mapped (R6)', async () => {
  const pages = new Pages();
  place(pages, 50, [4711, ...numbers(1023)]);
  await assert.rejects(
    read(pages, 50, 1024),
    (error) => error instanceof GrantMapError && error.ref === 4711,
  );
  assert.equal(pages.mapped, 0);
});

test('the largest and smallest references are references (R6)', async () => {
  const pages = new Pages();
  place(pages, 0xffff_ffff, [0, 1, 0xffff_ffff]);
  assert.deepEqual(await read(pages, 0xffff_ffff, 2), [1, 0xffff_ffff]);
});
