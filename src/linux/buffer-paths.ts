// The ways of a host that buffers can take, each tried with a page and given back at once.

import { F_SEAL_GROW, F_SEAL_SHRINK } from '../abi/fcntl.ts';
import { IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS, ioctlGntdevDmabufExpFromRefs } from '../abi/gntdev.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';
import { addSeals, close, ftruncate, memfdCreate } from '../posix/libc.ts';
import { SysError } from '../runtime/errors.ts';
import { domId } from '../xen/ids.ts';
import { unsupported } from '../xen/unsupported.ts';
import { GNTDEV, type OpenDevice, UDMABUF } from './device.ts';
import { CMA_HEAPS, DmaHeaps, HEAPS_REMEDY, heapNames } from './dma-heaps.ts';
import { EXPORT_CALL, NO_DMABUF_REASON, NO_DMABUF_REMEDY, PV_REASON } from './exports.ts';
import { GrantObserver } from './grant-observer.ts';
import type { HostProbe } from './host-path.ts';
import { guestType, knowsMachineFrames } from './kernel-facts.ts';
import { lendDmaBuf, NO_LENDING_REASON, wrongFrames } from './lends.ts';
import { LinuxMemory } from './memory.ts';
import { closeDmaBufs, Udmabuf } from './udmabuf.ts';

const ONE_PAGE = { context: 'trying with one page' };
/** The last number that Xen gives to a domain: hardly anybody has it, and what is lent is an empty page. */
const NOBODY = domId(DOMID_FIRST_RESERVED - 1);
/** One more than a page, so that it takes some luck to be consecutive by chance. */
const CONTIGUOUS_PAGES = 16;

/** Every way, as it can be tried by the devices that `open` opens. */
export function bufferProbes(open: OpenDevice) {
  return [
    { name: 'export-refs', look: () => lookAtExports(open) },
    { name: 'lend-buffers', look: () => lookAtLending(open) },
    { name: 'udmabuf', look: () => withDmaBuf(open, () => 'made a dma-buf of a page') },
    { name: 'dma-heaps', look: () => lookAtHeaps(open) },
    { name: 'contiguous-memory', look: () => lookAtContiguity(open) },
    { name: 'observe-grants', look: () => lookAtGrants(open) },
  ] as const satisfies readonly HostProbe[];
}

/** Asks for a dma-buf of no grants: refused by a kernel that has the path, unknown to one that has not. */
function lookAtExports(open: OpenDevice): string {
  using device = open(GNTDEV);
  const name = 'IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS';
  const argument = new Uint8Array(ioctlGntdevDmabufExpFromRefs.size);
  try {
    const request = { name, number: IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS, argument };
    device.ioctl(request, { context: 'asking for a dma-buf of no grants' });
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    if (error.errnoName === 'ENOTTY') {
      throw unsupported(EXPORT_CALL, NO_DMABUF_REASON, NO_DMABUF_REMEDY);
    }
    if (error.errnoName !== 'EINVAL') throw error;
  }
  if (guestType() === 'PV') throw unsupported(EXPORT_CALL, PV_REASON);
  return 'compiled in; the first buffer tells whether Xen lets it';
}

/** Lends a page to nobody. */
function lookAtLending(open: OpenDevice): Promise<string> | string {
  if (!knowsMachineFrames()) throw wrongFrames();
  return withDmaBuf(open, (fd) => {
    // Closing the device ends the loan, too.
    using device = open(GNTDEV);
    try {
      lendDmaBuf(device, NOBODY, { fd, pages: 1 });
    } catch (error) {
      if (!(error instanceof SysError) || error.errnoName !== 'ENOTTY') throw error;
      throw unsupported(error.call, NO_LENDING_REASON, NO_DMABUF_REMEDY);
    }
    return 'lent a page and ended the loan';
  });
}

/** Does something with a dma-buf of one page. */
function withDmaBuf(open: OpenDevice, use: (fd: number) => string): string {
  using udmabuf = new Udmabuf(open(UDMABUF));
  const memfd = memfdCreate('xen-zcopy-probe', { ...ONE_PAGE, sealable: true });
  try {
    ftruncate(memfd, PAGE_SIZE, ONE_PAGE);
    addSeals(memfd, F_SEAL_SHRINK | F_SEAL_GROW, ONE_PAGE);
    const parts = udmabuf.create(memfd, 1);
    try {
      return use(parts[0]!.fd);
    } finally {
      closeDmaBufs(parts);
    }
  } finally {
    close(memfd, ONE_PAGE);
  }
}

/** Allocates a page of every heap. */
async function lookAtHeaps(open: OpenDevice): Promise<string> {
  const names = heapNames();
  if (names.length === 0)
    throw unsupported('opening /dev/dma_heap', 'this kernel offers no dma-heaps', HEAPS_REMEDY);
  const heaps = new DmaHeaps(open, names);
  for (const name of names) {
    await heaps.allocate(name, 1, { kind: 'none', proof: 'a probe' }).free();
  }
  const cma = names.find((name) => CMA_HEAPS.includes(name));
  const consecutive =
    cma === undefined ? 'none of consecutive pages' : `${cma} of consecutive pages`;
  return `allocated a page of ${names.join(' and ')}; ${consecutive}`;
}

async function lookAtContiguity(open: OpenDevice): Promise<string> {
  await using memory = new LinuxMemory({ open });
  const buffer = await memory.allocate({ pages: CONTIGUOUS_PAGES, contiguity: 'device' });
  const { kind, proof } = buffer.contiguity;
  await buffer.free();
  return `${CONTIGUOUS_PAGES} pages, consecutive for the ${kind}: ${proof}`;
}

function lookAtGrants(open: OpenDevice): string {
  GrantObserver.open(open, guestType())[Symbol.dispose]();
  return "read this domain's grant table";
}
