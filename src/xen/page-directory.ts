// Page directories: how displif names the pages of a buffer, as a chain of pages of grant references
// (displif.h, struct xendispl_page_directory).
//
// Invariants: the number of references, and with it of directory pages, follows from the buffer's size
// alone, so no chain, cycle or self-link can make the reader walk further; every directory page is mapped
// read-only, copied once, and unmapped before anything in it is looked at; the chain must end exactly
// where the last reference is; reference 0 is invalid.

import assert from 'node:assert/strict';
import { grefsPerDirectoryPage, pageDirectory } from '../abi/displif.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { ForeignMemory, Grants, SharedPages } from './domain.ts';
import type { DomId, Gref } from './ids.ts';
import { check, distrust, type Untrusted } from './untrusted.ts';

const { gref_dir_next_page: nextPage, gref } = pageDirectory.fields;

/** Directory pages that name `pages` pages. */
export function directoryPages(pages: number): number {
  return Math.ceil(pages / grefsPerDirectoryPage);
}

export interface DirectoryReadRequest {
  /** Whose directory and pages these are. */
  readonly domid: DomId;
  /** Reference of the first directory page, as the guest gave it. */
  readonly first: Gref;
  /** How many references there must be. */
  readonly pages: number;
}

/**
 * Reads the references of a buffer.
 * @throws ProtocolViolation (XEN_EINVAL) `directory-short`, `directory-long` or `directory-gref-zero`
 * @throws GrantMapError when a directory page cannot be mapped
 */
export async function readPageDirectory(
  foreign: Pick<ForeignMemory, 'map'>,
  { domid, first, pages }: DirectoryReadRequest,
): Promise<Gref[]> {
  assert(pages > 0, 'a directory of nothing');
  const refs: Gref[] = [];
  let directory = first;
  while (refs.length < pages) {
    if (directory === 0) {
      const detail = `the chain ends after ${refs.length} of ${pages} references`;
      throw new ProtocolViolation('directory-short', 'XEN_EINVAL', detail);
    }
    const content = await copyPage(foreign, domid, directory);
    directory = check(content, (view) => appendRefs(view, refs, pages));
  }
  if (directory === 0) return refs;
  const detail = `the chain goes on after all ${pages} references`;
  throw new ProtocolViolation('directory-long', 'XEN_EINVAL', detail);
}

/** A private copy of one page; nothing of it is mapped any more when the promise resolves. */
async function copyPage(
  foreign: Pick<ForeignMemory, 'map'>,
  domid: DomId,
  ref: Gref,
): Promise<Untrusted<DataView>> {
  await using mapping = await foreign.map({ domid, refs: [ref], writable: false });
  return distrust(new DataView(mapping.bytes.slice().buffer));
}

/** Takes what one directory page adds to `refs`, up to `pages` of them. @returns the next page's ref */
function appendRefs(view: DataView, refs: Gref[], pages: number): Gref {
  const count = Math.min(pages - refs.length, grefsPerDirectoryPage);
  for (let index = 0; index < count; index++) {
    const ref = gref.getAt(view, 0, index) as Gref;
    if (ref === 0) {
      const detail = `reference ${refs.length} of ${pages} is 0`;
      throw new ProtocolViolation('directory-gref-zero', 'XEN_EINVAL', detail);
    }
    refs.push(ref);
  }
  return nextPage.get(view, 0) as Gref;
}

export interface DirectoryWriteRequest {
  /** Who may read the directory. */
  readonly domid: DomId;
  /** The buffer's references, in the order of its pages. */
  readonly refs: readonly Gref[];
}

/**
 * Shares a directory that names `refs`; its first page's reference is `refs[0]` of the result.
 * @throws SysError as `Grants.share`
 */
export async function writePageDirectory(
  grants: Pick<Grants, 'share'>,
  { domid, refs }: DirectoryWriteRequest,
): Promise<SharedPages> {
  assert(refs.length > 0, 'a directory of nothing');
  const pages = directoryPages(refs.length);
  const directory = await grants.share({ domid, pages, writable: false });
  const { buffer, byteOffset, byteLength } = directory.bytes;
  const view = new DataView(buffer, byteOffset, byteLength);
  for (let page = 0; page < pages; page++) {
    nextPage.set(view, page * PAGE_SIZE, directory.refs[page + 1] ?? 0);
    const begin = page * grefsPerDirectoryPage;
    const count = Math.min(refs.length - begin, grefsPerDirectoryPage);
    for (let index = 0; index < count; index++) {
      gref.setAt(view, page * PAGE_SIZE, index, refs[begin + index]!);
    }
  }
  return directory;
}
