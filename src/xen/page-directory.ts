// Page directories: how displif names the pages of a buffer, as a chain of pages of grant references
// (displif.h, struct xendispl_page_directory).
//
// Invariants: the number of references, and with it of directory pages, follows from the buffer's size
// alone, so no chain, cycle or self-link can make the reader walk further; every directory page is mapped
// read-only, copied once, and unmapped before anything in it is looked at; the chain must end exactly
// where the last reference is; reference 0 is invalid. A directory that the guest wants filled is walked by
// the same rules, one page at a time, and only its references are written.

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
    checkNotShort(directory, { done: refs.length, pages });
    const content = await copyPage(foreign, domid, directory);
    directory = check(content, (view) => appendRefs(view, refs, pages));
  }
  checkNotLong(directory, pages);
  return refs;
}

export interface DirectoryFillRequest {
  /** Whose directory this is: who asked for a buffer of ours. */
  readonly domid: DomId;
  /** Reference of the first directory page, as the guest gave it. */
  readonly first: Gref;
  /** The references to tell. */
  readonly refs: readonly Gref[];
}

/**
 * Writes the references of a buffer of ours into the directory that the guest has laid out for them
 * (XENDISPL_DBUF_FLG_REQ_ALLOC). Some may be written already when it fails.
 * @throws ProtocolViolation (XEN_EINVAL) `directory-short` or `directory-long`
 * @throws GrantMapError when a directory page cannot be mapped for writing
 */
export async function fillPageDirectory(
  foreign: Pick<ForeignMemory, 'map'>,
  { domid, first, refs }: DirectoryFillRequest,
): Promise<void> {
  assert(refs.length > 0, 'a directory of nothing');
  const pages = refs.length;
  let directory = first;
  for (let done = 0; done < pages; done += grefsPerDirectoryPage) {
    checkNotShort(directory, { done, pages });
    await using mapping = await foreign.map({ domid, refs: [directory], writable: true });
    const view = viewOf(mapping.bytes);
    directory = nextPage.get(view, 0) as Gref;
    writeRefs(view, 0, refs.slice(done, done + grefsPerDirectoryPage));
  }
  checkNotLong(directory, pages);
}

function checkNotShort(directory: Gref, { done, pages }: { done: number; pages: number }): void {
  if (directory !== 0) return;
  const detail = `the chain ends after ${done} of ${pages} references`;
  throw new ProtocolViolation('directory-short', 'XEN_EINVAL', detail);
}

function checkNotLong(directory: Gref, pages: number): void {
  if (directory === 0) return;
  const detail = `the chain goes on after all ${pages} references`;
  throw new ProtocolViolation('directory-long', 'XEN_EINVAL', detail);
}

/** Writes the references of one directory page, which begins at the byte `at`. */
function writeRefs(view: DataView, at: number, refs: readonly Gref[]): void {
  for (let index = 0; index < refs.length; index++) gref.setAt(view, at, index, refs[index]!);
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
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
  const directory = await shareChain(grants, { domid, pages: refs.length, writable: false });
  const view = viewOf(directory.bytes);
  for (let page = 0; page < directory.refs.length; page++) {
    const begin = page * grefsPerDirectoryPage;
    writeRefs(view, page * PAGE_SIZE, refs.slice(begin, begin + grefsPerDirectoryPage));
  }
  return directory;
}

/**
 * Shares a directory without references, for a backend that allocates a buffer of `pages` pages.
 * @throws SysError as `Grants.share`
 */
export function offerPageDirectory(
  grants: Pick<Grants, 'share'>,
  { domid, pages }: { domid: DomId; pages: number },
): Promise<SharedPages> {
  assert(pages > 0, 'a directory of nothing');
  return shareChain(grants, { domid, pages, writable: true });
}

/**
 * The references that a backend has written into a directory that it was offered.
 * @throws ProtocolViolation `directory-gref-zero` (XEN_EINVAL)
 */
export function offeredRefs(directory: SharedPages, pages: number): Gref[] {
  const refs: Gref[] = [];
  for (let page = 0; refs.length < pages; page++) {
    const bytes = directory.bytes.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    check(distrust(viewOf(bytes)), (view) => appendRefs(view, refs, pages));
  }
  return refs;
}

/** Directory pages for `pages` references, chained and otherwise empty. */
async function shareChain(
  grants: Pick<Grants, 'share'>,
  { domid, pages, writable }: { domid: DomId; pages: number; writable: boolean },
): Promise<SharedPages> {
  const directory = await grants.share({ domid, pages: directoryPages(pages), writable });
  const view = viewOf(directory.bytes);
  for (let page = 0; page < directory.refs.length; page++) {
    nextPage.set(view, page * PAGE_SIZE, directory.refs[page + 1] ?? 0);
  }
  return directory;
}
