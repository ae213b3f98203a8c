// Where a guest's picture goes: what the display backend asks of an output (browser, image, KMS).
//
// Invariants: an output reads a picture only between the call that shows it and the moment it reported
// that it has stopped; `onFlipped` is called exactly once per flip unless the connector is closed first.

import type { DomId } from '../xen/ids.ts';
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
}

export interface ConnectorInfo {
  readonly domid: DomId;
  /** Position among the guest's connectors, from 0. */
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
}

export interface DisplayOutput {
  /** Short word for the path that frames take, for status: `browser`, `null`, `kms`. */
  readonly name: string;
  connect(info: ConnectorInfo): Promise<OutputConnector>;
}
