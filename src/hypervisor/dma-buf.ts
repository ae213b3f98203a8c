// Who uses a buffer for DMA: the attachments of devices, as the core of a kernel's dma-bufs has them
// (drivers/dma-buf/dma-buf.c; drivers/xen/gntdev-dmabuf.c for the rules of exported grants).
//
// Invariants: while a device is attached its buffer's frames stay where they are; an attachment maps the
// buffer in one direction, and for ever in that one; the owner learns of the last detach at once.

import assert from 'node:assert/strict';
import { SysError } from '../runtime/errors.ts';

/** DMA_TO_DEVICE, DMA_FROM_DEVICE, DMA_BIDIRECTIONAL and DMA_NONE of Linux. */
export type DmaDirection = 'to-device' | 'from-device' | 'bidirectional' | 'none';

/** A run of a device's addresses. */
export interface BusExtent {
  /** In bytes, as the device puts it on its bus. */
  readonly address: bigint;
  readonly pages: number;
}

/** A buffer in a device's addresses; disposing it takes it out of them. */
export interface DeviceMapping extends Disposable {
  /** In the order of the pages. */
  readonly extents: readonly BusExtent[];
}

/** A device that can import buffers. */
export interface DmaImporter {
  readonly name: string;
  /** @throws SysError EINVAL when the device cannot reach the frames, ENOMEM without room for them */
  map(frames: Uint32Array): DeviceMapping;
}

/** One device's use of one buffer. */
export class Attachment implements Disposable {
  readonly device: DmaImporter;
  readonly #frames: Uint32Array;
  readonly #onDetach: (attachment: Attachment) => void;
  #mapped: { readonly direction: DmaDirection; readonly mapping: DeviceMapping } | undefined;
  #attached = true;

  constructor(made: {
    device: DmaImporter;
    frames: Uint32Array;
    onDetach: (attachment: Attachment) => void;
  }) {
    this.device = made.device;
    this.#frames = made.frames;
    this.#onDetach = made.onDetach;
  }

  /** Whether the device still has the buffer; its exporter's end takes it away, too. */
  get attached(): boolean {
    return this.#attached;
  }

  /**
   * The buffer in the device's addresses, until it is detached.
   * @throws SysError EINVAL for no direction, EBUSY for another one than before, or what the device says
   */
  map(direction: DmaDirection): readonly BusExtent[] {
    assert(this.#attached, `${this.device.name} is detached`);
    if (direction === 'none') throw this.#refused('EINVAL', 'a mapping without a direction');
    if (this.#mapped && this.#mapped.direction !== direction) {
      throw this.#refused('EBUSY', `mapped ${this.#mapped.direction} already, not ${direction}`);
    }
    this.#mapped ??= { direction, mapping: this.device.map(this.#frames) };
    return this.#mapped.mapping.extents;
  }

  /** Detaches; idempotent. */
  [Symbol.dispose](): void {
    if (!this.#attached) return;
    this.#attached = false;
    this.#mapped?.mapping[Symbol.dispose]();
    this.#onDetach(this);
  }

  #refused(errnoName: string, what: string): SysError {
    const context = `${this.device.name}, a buffer of ${this.#frames.length} pages: ${what}`;
    return new SysError({ call: 'dma_buf_map_attachment', errnoName, context });
  }
}

/** The attachments of one buffer. */
export class Attachments {
  readonly #frames: Uint32Array;
  readonly #onIdle: () => void;
  readonly #open = new Set<Attachment>();

  /** `onIdle` is called after the last detach. */
  constructor(frames: Uint32Array, onIdle: () => void = () => {}) {
    this.#frames = frames;
    this.#onIdle = onIdle;
  }

  get count(): number {
    return this.#open.size;
  }

  add(device: DmaImporter): Attachment {
    const attachment = new Attachment({
      device,
      frames: this.#frames,
      onDetach: (detached) => {
        this.#open.delete(detached);
        if (this.#open.size === 0) this.#onIdle();
      },
    });
    this.#open.add(attachment);
    return attachment;
  }

  /** Takes the buffer away from every device: its domain is over. */
  detachAll(): void {
    for (const attachment of [...this.#open]) attachment[Symbol.dispose]();
  }
}

/** An attempt to import a buffer through a handle that was closed. */
export function badHandle(device: DmaImporter): SysError {
  const context = `${device.name} imports a buffer whose handle is closed`;
  return new SysError({ call: 'dma_buf_get', errnoName: 'EBADF', context });
}
