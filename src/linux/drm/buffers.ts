// Memory that a card can scan out: dumb buffers of its own, and dma-bufs of other drivers.
//
// Invariants:
// - The kernel has one handle per buffer and open file, however often it is imported; so handles are
//   counted, and closed with the last user. A dumb buffer's handle is never closed as an import.
// - A handle is alive while its buffer is: a dumb buffer is destroyed when it is given back, after our view
//   of it and its file descriptor. A framebuffer keeps the memory by itself, not the handle.

import assert from 'node:assert/strict';
import {
  DRM_CLOEXEC,
  DRM_IOCTL_GEM_CLOSE,
  DRM_IOCTL_PRIME_FD_TO_HANDLE,
  DRM_IOCTL_PRIME_HANDLE_TO_FD,
  DRM_RDWR,
  drmGemClose,
  drmPrimeHandle,
} from '../../abi/drm.ts';
import {
  DRM_IOCTL_MODE_CREATE_DUMB,
  DRM_IOCTL_MODE_DESTROY_DUMB,
  DRM_IOCTL_MODE_MAP_DUMB,
  drmModeCreateDumb,
  drmModeDestroyDumb,
  drmModeMapDumb,
} from '../../abi/drm-mode.ts';
import { PAGE_SIZE } from '../../abi/page.ts';
import { close } from '../../posix/libc.ts';
import { Mapping } from '../../posix/mapping.ts';
import type { GivenBack } from '../../xen/memory.ts';
import { LinuxBuffer } from '../linux-buffer.ts';
import type { CardFile } from './card-file.ts';
import { ask } from './requests.ts';

const CREATE_DUMB = {
  name: 'DRM_IOCTL_MODE_CREATE_DUMB',
  number: DRM_IOCTL_MODE_CREATE_DUMB,
  layout: drmModeCreateDumb,
};
const MAP_DUMB = {
  name: 'DRM_IOCTL_MODE_MAP_DUMB',
  number: DRM_IOCTL_MODE_MAP_DUMB,
  layout: drmModeMapDumb,
};
const DESTROY_DUMB = {
  name: 'DRM_IOCTL_MODE_DESTROY_DUMB',
  number: DRM_IOCTL_MODE_DESTROY_DUMB,
  layout: drmModeDestroyDumb,
};
const HANDLE_TO_FD = {
  name: 'DRM_IOCTL_PRIME_HANDLE_TO_FD',
  number: DRM_IOCTL_PRIME_HANDLE_TO_FD,
  layout: drmPrimeHandle,
};
const FD_TO_HANDLE = {
  name: 'DRM_IOCTL_PRIME_FD_TO_HANDLE',
  number: DRM_IOCTL_PRIME_FD_TO_HANDLE,
  layout: drmPrimeHandle,
};
const GEM_CLOSE = { name: 'DRM_IOCTL_GEM_CLOSE', number: DRM_IOCTL_GEM_CLOSE, layout: drmGemClose };

/** The driver hands the memory back to its allocator; what importers still hold it cannot tell us. */
const GIVEN_BACK: GivenBack = { heldPages: 0, evidence: 'driver' };

export interface DumbRequest {
  readonly width: number;
  readonly height: number;
  readonly bitsPerPixel: number;
}

export interface DumbBuffer {
  /** The memory, zeroed, with a dma-buf of it. */
  readonly memory: LinuxBuffer;
  readonly handle: number;
  /** Bytes from one row to the next that the driver chose. */
  readonly pitch: number;
}

/** Use of a buffer by a handle; disposing it gives the handle up when nobody else uses it. */
export interface UsedHandle extends Disposable {
  readonly handle: number;
  /** Whether it is a dumb buffer of this card. */
  readonly own: boolean;
}

export class CardBuffers {
  readonly #file: CardFile;
  readonly #dumb = new Set<number>();
  /** Imported handles and how many use each. */
  readonly #imported = new Map<number, number>();

  constructor(file: CardFile) {
    this.#file = file;
  }

  /** How many handles are held now: 0 once everything was given back. */
  get handles(): number {
    return this.#dumb.size + this.#imported.size;
  }

  /** Zeroed memory of the card's own. @throws SysError ENOMEM, EINVAL (beyond the driver's limits) */
  createDumb({ width, height, bitsPerPixel }: DumbRequest): DumbBuffer {
    const what = `a dumb buffer of ${width}x${height} with ${bitsPerPixel} bits per pixel`;
    const dumb = { width, height, bpp: bitsPerPixel };
    const answer = ask(this.#file, CREATE_DUMB, dumb, { context: `allocating ${what}` });
    const { handle, pitch } = answer;
    this.#dumb.add(handle);
    let memory: LinuxBuffer | undefined;
    try {
      memory = this.#memoryOf(handle, Number(answer.size));
      // Most drivers give zeroed memory, but none promises it.
      memory.bytes.fill(0);
      return { memory, handle, pitch };
    } catch (error) {
      if (memory === undefined) this.#destroyDumb(handle);
      else void memory.free();
      throw error;
    }
  }

  /** Uses the buffer behind a dma-buf, imported unless it is the card's own. @throws SysError EINVAL */
  use(fd: number): UsedHandle {
    const context = { context: `importing dma-buf ${fd} into ${this.#file.path}` };
    const { handle } = ask(this.#file, FD_TO_HANDLE, { fd }, context);
    const own = this.#dumb.has(handle);
    if (!own) this.#imported.set(handle, (this.#imported.get(handle) ?? 0) + 1);
    let used = true;
    return {
      handle,
      own,
      [Symbol.dispose]: () => {
        if (used && !own) this.#unuse(handle);
        used = false;
      },
    };
  }

  #unuse(handle: number): void {
    const users = this.#imported.get(handle);
    assert(users !== undefined, `handle ${handle} is not imported`);
    if (users > 1) {
      this.#imported.set(handle, users - 1);
      return;
    }
    this.#imported.delete(handle);
    ask(this.#file, GEM_CLOSE, { handle }, { context: `closing handle ${handle}` });
  }

  #memoryOf(handle: number, size: number): LinuxBuffer {
    const flags = DRM_CLOEXEC | DRM_RDWR;
    const exporting = { context: `exporting dumb buffer ${handle} as a dma-buf` };
    const { fd } = ask(this.#file, HANDLE_TO_FD, { handle, flags }, exporting);
    const pages = Math.floor(size / PAGE_SIZE);
    return new LinuxBuffer({
      dmaBufs: [{ fd, pages }],
      contiguity: { kind: 'device', proof: `dumb buffer of ${this.#file.path}` },
      view: () => this.#map(handle, pages),
      giveBack: async () => {
        close(fd, { context: `closing the dma-buf of dumb buffer ${handle}` });
        this.#destroyDumb(handle);
        return GIVEN_BACK;
      },
    });
  }

  #map(handle: number, pages: number): Mapping {
    const context = { context: `mapping dumb buffer ${handle}` };
    const { offset } = ask(this.#file, MAP_DUMB, { handle }, context);
    return new Mapping(pages, { fd: this.#file.mapFd, offset: Number(offset), writable: true });
  }

  #destroyDumb(handle: number): void {
    this.#dumb.delete(handle);
    if (this.#file.closed) return;
    ask(this.#file, DESTROY_DUMB, { handle }, { context: `destroying dumb buffer ${handle}` });
  }
}
