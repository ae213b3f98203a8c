// Memory by /dev/dma_heap/NAME (linux/dma-heap.h): `system`, which is scattered, and the heaps over memory that
// was set aside when the kernel started (CMA), whose buffers are of consecutive pages.
//
// Invariants:
// - A heap's memory is zeroed by the kernel when it is allocated.
// - Consecutive pages of Linux are consecutive frames of the machine only where this domain is mapped so:
//   without Xen, and in a dom0 of Arm. In other translated domains they are consecutive for devices behind
//   the IOMMU; in a PV domain they are nothing.
// - Nobody tells who else still has such memory: our evidence is the driver's word.

import { readdirSync } from 'node:fs';
import { DMA_HEAP_IOCTL_ALLOC, dmaHeapAllocationData } from '../abi/dma-heap.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import { O_CLOEXEC, O_RDWR } from '../posix/libc.ts';
import type { Contiguity, ContiguityKind, GivenBack } from '../xen/memory.ts';
import { unsupported } from '../xen/unsupported.ts';
import { OwnedFile } from './buffer-files.ts';
import type { OpenDevice, XenDevice } from './device.ts';
import { directMapped, guestType } from './kernel-facts.ts';
import { LinuxBuffer } from './linux-buffer.ts';
import { SyncedView } from './synced-view.ts';

const FOLDER = '/dev/dma_heap';
export const SYSTEM_HEAP = 'system';
/** Names that the heap over the default CMA area has had. */
export const CMA_HEAPS: readonly string[] = ['default_cma_region', 'linux,cma', 'reserved', 'cma'];
export const CMA_REMEDY =
  'boot Linux with cma=SIZE on its command line, with a kernel that has CONFIG_DMABUF_HEAPS_CMA';

/** How a CMA heap's buffers lie on this host, if they lie in any way. */
export type ConsecutivePages = Exclude<ContiguityKind, 'none'> | undefined;

/** What consecutive pages of Linux are worth here. */
export function consecutivePages(): ConsecutivePages {
  const type = guestType();
  // In a PV domain's own words its frames are the machine's (direct-mapped), and its pages are neither.
  if (type === 'PV') return undefined;
  return type === undefined || directMapped() ? 'host' : 'device';
}

export const PV_PAGES_REASON =
  'in a PV domain consecutive pages are not consecutive frames of the machine, so no heap helps';

export const HEAPS_REMEDY = 'use a kernel with CONFIG_DMABUF_HEAPS and CONFIG_DMABUF_HEAPS_SYSTEM';

function heapDevice(name: string): XenDevice {
  return { path: `${FOLDER}/${name}`, whenAbsent: HEAPS_REMEDY };
}

export class DmaHeaps {
  readonly #open: OpenDevice;
  readonly #names: readonly string[];

  /** `names`: the heaps there are. */
  constructor(open: OpenDevice, names: readonly string[] = heapNames()) {
    this.#open = open;
    this.#names = names;
  }

  /** The heap that gives consecutive pages. @throws SysError EOPNOTSUPP naming what was looked for */
  get cma(): string {
    const found = CMA_HEAPS.find((name) => this.#names.includes(name));
    if (found !== undefined) return found;
    const reason = `none of the heaps ${CMA_HEAPS.join(', ')} is in ${FOLDER}`;
    throw unsupported('ioctl DMA_HEAP_IOCTL_ALLOC', reason, CMA_REMEDY);
  }

  /** @throws SysError ENOMEM, or what the heap refuses */
  allocate(heap: string, pages: number, contiguity: Contiguity): LinuxBuffer {
    const closing = `giving ${pages} pages of the heap ${heap} back`;
    const file = new OwnedFile(this.#allocate(heap, pages), closing);
    const giveBack = async (): Promise<GivenBack> => {
      file[Symbol.dispose]();
      return { heldPages: 0, evidence: 'driver' };
    };
    const view = () => new SyncedView(file, pages);
    const dmaBufs = [{ fd: file.fd, pages }];
    return new LinuxBuffer({ dmaBufs, contiguity, view, giveBack });
  }

  #allocate(heap: string, pages: number): number {
    using device = this.#open(heapDevice(heap));
    const argument = new Uint8Array(dmaHeapAllocationData.size);
    const view = new DataView(argument.buffer);
    dmaHeapAllocationData.write(view, 0, {
      len: BigInt(pages * PAGE_SIZE),
      fd: 0,
      fd_flags: O_RDWR | O_CLOEXEC,
      heap_flags: 0n,
    });
    device.ioctl(
      { name: 'DMA_HEAP_IOCTL_ALLOC', number: DMA_HEAP_IOCTL_ALLOC, argument },
      { context: `allocating ${pages} pages from the heap ${heap}` },
    );
    return dmaHeapAllocationData.fields.fd.get(view, 0);
  }
}

/** The heaps of this host. */
export function heapNames(): string[] {
  try {
    return readdirSync(FOLDER).sort();
  } catch {
    return [];
  }
}
