// Buffers of memory that somebody else in this domain made and hands over by a file descriptor: a dma-buf as
// it is, a memfd by dma-bufs over its pages.
//
// Invariants:
// - We have descriptors of our own; the caller's stay the caller's.
// - What others do with the memory is not ours to know: giving it back closes what we have, and that is all.
// - A memfd is sealed against shrinking before it is used. That cannot be undone, so what can be known to be
//   refused is refused before; and its size counts as it is afterwards.

import { F_SEAL_FUTURE_WRITE, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE } from '../abi/fcntl.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import { addSeals, sealsOf } from '../posix/libc.ts';
import { Mapping } from '../posix/mapping.ts';
import { SysError } from '../runtime/errors.ts';
import type { Contiguity, GivenBack } from '../xen/memory.ts';
import type { BufferFile, BufferFiles, FileIdentity } from './buffer-files.ts';
import { type BufferView, LinuxBuffer } from './linux-buffer.ts';
import { SyncedView } from './synced-view.ts';
import { closeDmaBufs, type Udmabuf } from './udmabuf.ts';

const DRIVERS_PAGES: Contiguity = {
  kind: 'none',
  proof: 'a dma-buf of another, who alone knows how its pages lie',
};
const MEMFD_PAGES: Contiguity = { kind: 'none', proof: 'pages of a memfd, as they came' };
const GIVEN_BACK: GivenBack = { heldPages: 0, evidence: 'driver' };

/** Why a dma-buf has no view, by the errno of mmap. */
const VIEW_REMEDIES: Readonly<Record<string, string>> = {
  EINVAL: 'its driver gives no view of it (gntdev gives none: map the grants as well)',
  ENODEV: 'its driver gives no view of it',
  EACCES: 'hand it over by a descriptor that is open for reading and writing',
};

export interface AdoptionParts {
  readonly files: BufferFiles;
  /** Asked for memfds alone. @throws SysError EOPNOTSUPP where there is none */
  readonly udmabuf: () => Udmabuf;
}

/** Makes a buffer of `fd`, which is what `identity` says. @throws SysError, with nothing kept open */
export function adoptedBuffer(
  fd: number,
  identity: FileIdentity,
  { files, udmabuf }: AdoptionParts,
): LinuxBuffer {
  const pages = wholePages(identity);
  const maker = identity.kind === 'memfd' ? udmabuf() : undefined;
  const file = files.duplicate(fd);
  try {
    if (maker === undefined) return overDmaBuf(file, pages);
    sealAgainstShrinking(file.fd, pages);
    return overMemfd(file, wholePages(files.identify(file.fd)), maker);
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/** @throws SysError EINVAL */
function wholePages({ kind, sizeBytes }: FileIdentity): number {
  if (sizeBytes > 0 && sizeBytes % PAGE_SIZE === 0) return sizeBytes / PAGE_SIZE;
  throw new SysError({
    call: 'fstat',
    errnoName: 'EINVAL',
    context: `taking a ${kind} of ${sizeBytes} bytes`,
    remedy: `its size must be a multiple of ${PAGE_SIZE} bytes, and not 0`,
  });
}

function overDmaBuf(file: BufferFile, pages: number): LinuxBuffer {
  return new LinuxBuffer({
    dmaBufs: [{ fd: file.fd, pages }],
    contiguity: DRIVERS_PAGES,
    view: () => viewOf(file, pages),
    giveBack: async () => {
      file[Symbol.dispose]();
      return GIVEN_BACK;
    },
  });
}

/** @throws SysError that says so where the driver gives none */
function viewOf(file: BufferFile, pages: number): BufferView {
  try {
    return new SyncedView(file, pages);
  } catch (error) {
    if (!(error instanceof SysError) || error.call !== 'mmap') throw error;
    const { call, errnoName } = error;
    const remedy = VIEW_REMEDIES[errnoName];
    if (remedy === undefined) throw error;
    const context = `mapping a dma-buf of another, of ${pages} pages`;
    throw new SysError({ call, errnoName, context, remedy });
  }
}

function overMemfd(file: BufferFile, pages: number, udmabuf: Udmabuf): LinuxBuffer {
  const dmaBufs = udmabuf.create(file.fd, pages);
  return new LinuxBuffer({
    dmaBufs,
    contiguity: MEMFD_PAGES,
    view: () => new Mapping(pages, { fd: file.fd, offset: 0, writable: true }),
    giveBack: async () => {
      closeDmaBufs(dmaBufs);
      file[Symbol.dispose]();
      return GIVEN_BACK;
    },
  });
}

/** As udmabuf needs it. @throws SysError EINVAL when its seals do not allow that */
function sealAgainstShrinking(memfd: number, pages: number): void {
  const context = `taking a memfd of ${pages} pages`;
  const seals = sealsOf(memfd, { context });
  if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) !== 0) {
    const remedy = 'it is sealed against writing: hand over one that is not';
    throw new SysError({ call: 'fcntl F_GET_SEALS', errnoName: 'EINVAL', context, remedy });
  }
  if ((seals & F_SEAL_SHRINK) !== 0) return;
  if ((seals & F_SEAL_SEAL) !== 0) {
    const remedy = 'it takes no seals and may shrink: make it with MFD_ALLOW_SEALING';
    throw new SysError({ call: 'fcntl F_GET_SEALS', errnoName: 'EINVAL', context, remedy });
  }
  const remedy = 'the descriptor must be open for writing, or the memfd have F_SEAL_SHRINK already';
  addSeals(memfd, F_SEAL_SHRINK, { context, remedy });
}
