// The directory of two levels: up to 4 GiB behind one reference.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { SHARE_DIRECTORY_REFS, SHARE_PAGES_MAX } from '../../src/abi/share.ts';
import { directoryLeaves, readDirectory, writeDirectory } from '../../src/share/grant-directory.ts';
import type {
  ForeignMapping,
  MapRequest,
  SharedPages,
  ShareRequest,
} from '../../src/xen/domain.ts';
import { type DomId, type Gref, gref } from '../../src/xen/ids.ts';

const PEER = 7 as DomId;

/** Granted pages by reference, and what of them is mapped. */
class Pages {
  readonly table = new Map<Gref, Uint8Array>();
  mapped = 0;
  mostMapped = 0;

  async share({ domid, pages, writable }: ShareRequest): Promise<SharedPages> {
    const bytes = new Uint8Array(pages * PAGE_SIZE);
    const refs = Array.from({ length: pages }, (_, page) => {
      const ref = gref(5_000_000 + this.table.size);
      this.table.set(ref, bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE));
      return ref;
    });
    const end = async () => ({ heldPages: 0, evidence: 'none' });
    return { domid, writable, refs, bytes, end, [Symbol.asyncDispose]: async () => {} };
  }

  async map({ domid, refs, writable }: MapRequest): Promise<ForeignMapping> {
    assert.equal(writable, false, 'a directory is only read');
    const bytes = new Uint8Array(refs.length * PAGE_SIZE);
    refs.forEach((ref, page) => {
      bytes.set(this.table.get(ref)!, page * PAGE_SIZE);
    });
    this.mapped += refs.length;
    this.mostMapped = Math.max(this.mostMapped, this.mapped);
    const unmap = async () => {
      this.mapped -= refs.length;
    };
    return { domid, pages: refs.length, areas: 1, writable, bytes, [Symbol.asyncDispose]: unmap };
  }
}

function numbers(count: number): Gref[] {
  return Array.from({ length: count }, (_, i) => gref(i + 8));
}

async function roundTrip(count: number): Promise<Pages> {
  const pages = new Pages();
  const refs = numbers(count);
  const directory = await writeDirectory(pages, { domid: PEER, refs });
  assert.equal(directory.refs.length, 1 + directoryLeaves(count));
  const read = await readDirectory(pages, { domid: PEER, ref: directory.refs[0]!, pages: count });
  assert.equal(read.length, count);
  assert(read.every((ref, index) => ref === refs[index]));
  assert.equal(pages.mapped, 0, 'a page of the directory stays mapped');
  return pages;
}

test('what is written is read back, at every boundary', async () => {
  const R = SHARE_DIRECTORY_REFS;
  for (const count of [1, R - 1, R, R + 1, 2 * R, 64 * R, 64 * R + 1]) await roundTrip(count);
});

test('and at any size', () =>
  fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 20_000 }), async (count) => {
      await roundTrip(count);
    }),
    { numRuns: 20 },
  ));

test('4 GiB are named by one reference, and read with 64 pages mapped at a time', async () => {
  const pages = await roundTrip(SHARE_PAGES_MAX);
  assert.equal(SHARE_PAGES_MAX * PAGE_SIZE, 4 * 1024 ** 3);
  assert.equal(pages.table.size, 1025);
  assert.equal(pages.mostMapped, 64);
});

test('a reference of 0 on either level is a violation', async () => {
  for (const page of [0, 1]) {
    const pages = new Pages();
    const refs = numbers(1500);
    const directory = await writeDirectory(pages, { domid: PEER, refs });
    new Uint32Array(directory.bytes.buffer)[page * SHARE_DIRECTORY_REFS] = 0;
    const request = { domid: PEER, ref: directory.refs[0]!, pages: 1500 };
    await assert.rejects(readDirectory(pages, request), /directory-gref-zero/);
    assert.equal(pages.mapped, 0);
  }
});
