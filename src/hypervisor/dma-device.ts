// A model of a device that reads or writes buffers by DMA: how wide its addresses are, whether it can take
// a buffer in pieces, and whether an IOMMU stands before it. What it cannot reach it refuses to import, in
// words; there are no bounce buffers, as they would copy (Linux's swiotlb).

import { PAGE_SHIFT, PAGE_SIZE } from '../abi/page.ts';
import { SysError } from '../runtime/errors.ts';
import type { Contiguity } from '../xen/memory.ts';
import { contiguityOf } from './contiguity.ts';
import type { BusExtent, DeviceMapping, DmaImporter } from './dma-buf.ts';
import { runsOf } from './frame-allocator.ts';
import type { Iommu } from './iommu.ts';

export interface DmaDeviceOptions {
  readonly name: string;
  /** Bits of the addresses that it can put on the bus (its DMA mask). */
  readonly addressBits: number;
  /** Pieces that it can take a buffer in; 1: only contiguous buffers. */
  readonly maxSegments: number;
  /** Stands between it and the memory. */
  readonly iommu?: Iommu;
}

export class DmaDevice implements DmaImporter {
  readonly name: string;
  readonly addressBits: number;
  readonly maxSegments: number;
  readonly iommu: Iommu | undefined;

  constructor({ name, addressBits, maxSegments, iommu }: DmaDeviceOptions) {
    this.name = name;
    this.addressBits = addressBits;
    this.maxSegments = maxSegments;
    this.iommu = iommu;
  }

  /** How a buffer's frames lie for this device. */
  contiguityOf({ frames }: { readonly frames: Uint32Array }): Contiguity {
    return contiguityOf(frames, this.iommu);
  }

  map(frames: Uint32Array): DeviceMapping {
    if (this.iommu) {
      const mapping = this.iommu.map(frames, { addressBits: this.addressBits });
      return { extents: [mapping], [Symbol.dispose]: () => mapping[Symbol.dispose]() };
    }
    const extents = this.#reachable(frames);
    if (extents.length <= this.maxSegments) return { extents, [Symbol.dispose]: () => {} };
    throw this.#refused(
      `${extents.length} runs of machine frames, and it takes ${this.maxSegments} without an IOMMU`,
      'allocate the buffer contiguous in the machine',
    );
  }

  /** The frames as the bus has them. @throws SysError EINVAL when one is out of the device's reach */
  #reachable(frames: Uint32Array): BusExtent[] {
    const below = 2 ** (this.addressBits - PAGE_SHIFT);
    const page = frames.findIndex((frame) => frame >= below);
    if (page >= 0) {
      throw this.#refused(
        `page ${page} is in machine frame ${frames[page]}, and it addresses ${this.addressBits} bits`,
        'allocate the buffer below its limit',
      );
    }
    return [...runsOf(frames)].map(({ start, count }) => ({
      address: BigInt(start) * BigInt(PAGE_SIZE),
      pages: count,
    }));
  }

  #refused(why: string, remedy: string): SysError {
    const context = `${this.name} cannot import the buffer: ${why}`;
    return new SysError({ call: 'dma_map_sgtable', errnoName: 'EINVAL', context, remedy });
  }
}
