// Buffers of a memfd of their own, with dma-bufs over its pages.
//
// Invariants:
// - A memfd serves one buffer, once: its pages are zeroed by the kernel before a driver gets them, and go back
//   to the kernel when nobody has them. None is ever shown to a second user.
// - That nobody has them is proven, not assumed: F_SEAL_WRITE is refused while any page has a user (a
//   mapping, a driver, a grant that another domain still maps, for which the kernel keeps the page).

import { F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE } from '../abi/fcntl.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import {
  addSeals,
  allocatePages,
  close,
  ftruncate,
  memfdCreate,
  populatePages,
  trySeal,
} from '../posix/libc.ts';
import { Mapping } from '../posix/mapping.ts';
import { SysError } from '../runtime/errors.ts';
import type { Contiguity, GivenBack } from '../xen/memory.ts';
import { type DmaBufPart, LinuxBuffer } from './linux-buffer.ts';
import { closeDmaBufs, type Udmabuf } from './udmabuf.ts';

const SCATTERED: Contiguity = { kind: 'none', proof: 'pages of a memfd, as they came' };
const EVIDENCE = 'memfd seal';

export const MEMORY_REMEDY = 'give this domain more memory (dom0_mem on the command line of Xen)';

export interface MemfdBufferRequest {
  readonly pages: number;
  readonly udmabuf: Udmabuf;
  /** Called once, when the memory has gone back to the kernel. */
  readonly onGone?: () => Promise<void>;
  /** Runs a try of the seal, one at a time with others; at once when left out. */
  readonly inTurn?: Turn;
}

/** Runs `work` when it is its turn. */
export type Turn = (work: () => Promise<boolean>) => Promise<boolean>;

/** A new buffer of zeroed pages, all of them there. @throws SysError ENOMEM, or what udmabuf refuses */
export async function memfdBuffer(request: MemfdBufferRequest): Promise<LinuxBuffer> {
  const { pages, udmabuf } = request;
  const memfd = await filledMemfd('xen-zcopy-buffer', pages);
  try {
    const context = `clearing ${pages} pages`;
    const length = pages * PAGE_SIZE;
    await populatePages(memfd, { offset: 0, length }, { context, remedy: MEMORY_REMEDY });
    addSeals(memfd, F_SEAL_SHRINK | F_SEAL_GROW, { context: `sealing a memfd of ${pages} pages` });
    const dmaBufs = udmabuf.create(memfd, pages);
    return bufferOver(memfd, dmaBufs, request);
  } catch (error) {
    close(memfd, { context: 'closing a memfd that did not become a buffer' });
    throw error;
  }
}

/** A memfd that takes seals, with all its pages. @throws SysError ENOMEM */
export async function filledMemfd(name: string, pages: number): Promise<number> {
  const context = `setting ${pages} pages aside`;
  const memfd = memfdCreate(name, { context, sealable: true });
  const length = pages * PAGE_SIZE;
  try {
    ftruncate(memfd, length, { context });
    if (await allocatePages(memfd, { offset: 0, length })) return memfd;
    throw new SysError({ call: 'fallocate', errnoName: 'ENOMEM', context, remedy: MEMORY_REMEDY });
  } catch (error) {
    close(memfd, { context: 'closing a memfd without pages' });
    throw error;
  }
}

function bufferOver(
  memfd: number,
  dmaBufs: readonly DmaBufPart[],
  { pages, onGone, inTurn = (work) => work() }: MemfdBufferRequest,
): LinuxBuffer {
  const sealing = { context: `asking for the users of a memfd of ${pages} pages` };
  let open = true;
  const giveBack = async (): Promise<GivenBack> => {
    if (open) closeDmaBufs(dmaBufs);
    open = false;
    const free = await inTurn(() => trySeal(memfd, F_SEAL_WRITE, sealing));
    if (!free) return { heldPages: pages, evidence: EVIDENCE };
    close(memfd, { context: `giving a memfd of ${pages} pages back` });
    await onGone?.();
    return { heldPages: 0, evidence: EVIDENCE };
  };
  const view = () => new Mapping(pages, { fd: memfd, offset: 0, writable: true });
  return new LinuxBuffer({ dmaBufs, contiguity: SCATTERED, view, giveBack });
}
