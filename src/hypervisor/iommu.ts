// An IOMMU: gives devices addresses of their own, at which scattered machine frames lie in one piece (what
// the thread of 2018 calls IPA-contiguous).
//
// Invariants: a mapping is one run of addresses, below what its device can put on the bus; addresses are
// never given to two mappings; address 0 is never given, as drivers take it for none.

import assert from 'node:assert/strict';
import { PAGE_SHIFT, PAGE_SIZE } from '../abi/page.ts';
import { SysError } from '../runtime/errors.ts';
import { FrameAllocator } from './frame-allocator.ts';

/** Addresses of the IOMMUs of today's machines. */
const DEFAULT_IOMMU_ADDRESS_BITS = 48;

export interface IommuOptions {
  readonly name: string;
  /** Bits of the addresses that it gives. */
  readonly addressBits?: number;
  /** Makes a mapping of so many pages fail with ENOMEM, for tests and simulations. */
  readonly fault?: (pages: number) => boolean;
}

/** Frames at consecutive addresses of devices; disposing it takes them away. */
export interface IoMapping extends Disposable {
  /** In bytes. */
  readonly address: bigint;
  readonly pages: number;
}

export class Iommu {
  readonly name: string;
  readonly #addressBits: number;
  readonly #fault: (pages: number) => boolean;
  readonly #space: FrameAllocator;
  /** The frames of each mapping by its first page. */
  readonly #mapped = new Map<number, Uint32Array>();

  constructor(options: IommuOptions) {
    const { name, addressBits = DEFAULT_IOMMU_ADDRESS_BITS, fault = () => false } = options;
    this.name = name;
    this.#addressBits = addressBits;
    this.#fault = fault;
    this.#space = new FrameAllocator({ start: 1, count: 2 ** (addressBits - PAGE_SHIFT) - 1 });
  }

  get mappings(): number {
    return this.#mapped.size;
  }

  /** Joins frames for a device that has `addressBits`. @throws SysError ENOMEM without room for them */
  map(frames: Uint32Array, { addressBits }: { addressBits: number }): IoMapping {
    const pages = frames.length;
    const bits = Math.min(addressBits, this.#addressBits);
    const start = this.#fault(pages) ? undefined : this.#takeRun(pages, 2 ** (bits - PAGE_SHIFT));
    if (start === undefined) {
      throw new SysError({
        call: 'iommu_map',
        errnoName: 'ENOMEM',
        context: `${this.name} has no ${pages} consecutive pages of addresses below 2^${bits}`,
        remedy: 'release buffers of its devices',
      });
    }
    this.#mapped.set(start, frames);
    const unmap = () => {
      if (this.#mapped.delete(start)) this.#space.release({ start, count: pages });
    };
    return { address: BigInt(start) * BigInt(PAGE_SIZE), pages, [Symbol.dispose]: unmap };
  }

  /** The machine frame that a device finds at an address; undefined is a fault of the IOMMU. */
  translate(address: bigint): number | undefined {
    assert(address >= 0n, 'an address below 0');
    const page = Number(address >> BigInt(PAGE_SHIFT));
    for (const [start, frames] of this.#mapped) {
      if (page >= start && page < start + frames.length) return frames[page - start];
    }
    return undefined;
  }

  /** One run of addresses, or undefined when the free ones are in pieces. */
  #takeRun(pages: number, below: number): number | undefined {
    const extents = this.#space.allocate(pages, { below });
    if (extents?.length === 1) return extents[0]!.start;
    for (const extent of extents ?? []) this.#space.release(extent);
    return undefined;
  }
}
