// Where a guest's picture goes: what the display backend asks of an output (browser, image, KMS).
//
// Invariants: an output reads a picture only between the call that shows it and the moment it reported
// that it has stopped; `onFlipped` is called exactly once per flip unless the connector is closed first.

import type { Runtime } from '../runtime/runtime.ts';
import type { DomId } from '../xen/ids.ts';
import type { ContiguityKind, DmaBuf, LocalBuffer } from '../xen/memory.ts';
import type { PixelFormat } from './pixel-format.ts';

/** A framebuffer's visible part, in the guest's own pages. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  /** Bytes from one row to the next. */
  readonly stride: number;
  readonly format: PixelFormat;
  /** From the first byte of the first row to the last byte of the last row, not copied. */
  readonly bytes: Uint8Array;
  /** The memory that it lies in, for outputs that hand it to a driver; undefined where it is only mapped. */
  readonly memory: DmaBuf | undefined;
  /** Where the first row begins in that memory, in bytes. */
  readonly offset: number;
}

export interface ConnectorInfo {
  readonly domid: DomId;
  /** Number among the guest's connectors, over all of its displays (connector-number.ts). */
  readonly index: number;
  readonly uniqueId: string;
  /** The resolution that the toolstack configured, in pixels. */
  readonly width: number;
  readonly height: number;
}

/** One connector's place in an output. Disposing it blanks it; no call follows. */
export interface OutputConnector extends AsyncDisposable {
  /** Shows `picture` from now on, or nothing. Pending flips are completed first. */
  show(picture: Picture | undefined): void;
  /** Shows `picture` instead of the previous one; then, once nothing reads that, calls `onFlipped`. */
  flip(picture: Picture, onFlipped: () => void): void;
  /** Resolves when nothing reads `picture` any more; it is not shown afterwards. */
  retire(picture: Picture): Promise<void>;
  /** Bytes of frames that this output had to copy, for the metrics (law 1). */
  readonly bytesCopied: number;
  /** Short word for the way that frames take now, for status: `browser`, `null`, `kms`. */
  readonly path: string;
}

/** A buffer that a guest wants from the driver domain. */
export interface OutputBufferRequest {
  readonly domid: DomId;
  readonly width: number;
  readonly height: number;
  readonly bitsPerPixel: number;
  /** Bytes from one row to the next that the guest will use, whatever the hardware likes. */
  readonly stride: number;
  /** Pages that the guest expects at least. */
  readonly pages: number;
}

export interface DisplayOutput {
  /** What is done for this connector alone, as pacing its flips, is done in `runtime`: its failures are its guest's. */
  connect(info: ConnectorInfo, runtime: Runtime): Promise<OutputConnector>;
  /** Whether it hands pictures to drivers, so that a dma-buf of the guest's pages is of use to it. */
  readonly importsBuffers?: boolean;
  /** What memory that it is to show without a copy must be; `none` when left out. */
  readonly contiguity?: ContiguityKind;
  /**
   * Memory of the output's own for a guest to draw into, zeroed, shown with exactly the stride asked for.
   * Left out, or undefined as a result (with the reason logged), where the output has none such.
   */
  allocate?(request: OutputBufferRequest): Promise<LocalBuffer | undefined>;
}
