// The names of a share's pages: a directory of two levels, each page of it full of grant references, so that
// one reference leads to up to 4 GiB (docs/share-protocol.md, "The directory").
//
// Invariants: how many pages both levels have follows from the number of data pages alone; every page is
// mapped for reading, copied once and unmapped before anything in it is looked at; reference 0 is invalid.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../abi/page.ts';
import { SHARE_DIRECTORY_REFS, SHARE_PAGES_MAX } from '../abi/share.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { ForeignMemory, Grants, SharedPages } from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import { check, distrust, type Untrusted } from '../xen/untrusted.ts';

/** Pages of the second level that are mapped at a time: those of 256 MiB. */
const BATCH_PAGES = 64;

/** Pages of the second level for so many pages of data. */
export function directoryLeaves(pages: number): number {
  return Math.ceil(pages / SHARE_DIRECTORY_REFS);
}

/**
 * Shares a directory that names `refs`; its first level is in the first page of the result.
 * @throws SysError as `Grants.share`
 */
export async function writeDirectory(
  grants: Pick<Grants, 'share'>,
  { domid, refs }: { domid: DomId; refs: readonly Gref[] },
): Promise<SharedPages> {
  assert(refs.length > 0 && refs.length <= SHARE_PAGES_MAX, `a directory of ${refs.length} pages`);
  const pages = 1 + directoryLeaves(refs.length);
  const directory = await grants.share({ domid, pages, writable: false });
  const words = wordsOf(directory.bytes);
  words.set(directory.refs.slice(1), 0);
  words.set(refs, SHARE_DIRECTORY_REFS);
  return directory;
}

export interface DirectoryRequest {
  /** Whose directory this is. */
  readonly domid: DomId;
  /** Of its first level. */
  readonly ref: Gref;
  /** How many references there must be. */
  readonly pages: number;
}

/**
 * The references of a share's pages.
 * @throws ProtocolViolation `directory-gref-zero` (XEN_EINVAL)
 * @throws GrantMapError when a page of the directory cannot be mapped, SysError without room
 */
export async function readDirectory(
  foreign: Pick<ForeignMemory, 'map'>,
  { domid, ref, pages }: DirectoryRequest,
): Promise<Gref[]> {
  assert(pages > 0 && pages <= SHARE_PAGES_MAX, `a directory of ${pages} pages`);
  const first = await copyPages(foreign, domid, [ref]);
  const leaves = takeRefs(first, directoryLeaves(pages));
  const refs: Gref[] = [];
  for (let leaf = 0; leaf < leaves.length; leaf += BATCH_PAGES) {
    const batch = await copyPages(foreign, domid, leaves.slice(leaf, leaf + BATCH_PAGES));
    const count = Math.min(pages - refs.length, BATCH_PAGES * SHARE_DIRECTORY_REFS);
    for (const each of takeRefs(batch, count)) refs.push(each);
  }
  return refs;
}

/** A private copy; nothing of it is mapped any more when the promise resolves. */
async function copyPages(
  foreign: Pick<ForeignMemory, 'map'>,
  domid: DomId,
  refs: readonly Gref[],
): Promise<Untrusted<Uint32Array>> {
  await using mapping = await foreign.map({ domid, refs, writable: false });
  return distrust(wordsOf(mapping.bytes).slice());
}

function takeRefs(copy: Untrusted<Uint32Array>, count: number): Gref[] {
  return check(copy, (words) => {
    const refs = Array.from(words.subarray(0, count));
    const zero = refs.indexOf(0);
    if (zero < 0) return refs as Gref[];
    const detail = `reference ${zero} of ${count} is 0`;
    throw new ProtocolViolation('directory-gref-zero', 'XEN_EINVAL', detail);
  });
}

function wordsOf({ buffer, byteOffset, byteLength }: Uint8Array): Uint32Array {
  assert(byteLength % PAGE_SIZE === 0, 'a directory is made of pages');
  return new Uint32Array(buffer, byteOffset, byteLength / Uint32Array.BYTES_PER_ELEMENT);
}
