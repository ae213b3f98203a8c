// What is to be told about a connector that is connected now. Plain data, shared with the viewer page.

export interface ConnectorStatus {
  /** The display that it belongs to. */
  readonly devid: number;
  /** Number among the guest's connectors; those of its first display count from 0 (connector-number.ts). */
  readonly connector: number;
  readonly uniqueId: string;
  /** Of the picture, or of the connector while nothing is shown; pixels. */
  readonly width: number;
  readonly height: number;
  /** Name of the pixel format, or null while nothing is shown. */
  readonly format: string | null;
  /** Flips completed since the frontend connected. */
  readonly flips: number;
  readonly flipsPerSecond: number;
  /** From the arrival of the last flip's request to its event; null before the first. */
  readonly flipLatencyMs: number | null;
  /** Bytes of frames that the output had to copy. */
  readonly bytesCopied: number;
  /** The way that frames take: the output's name. */
  readonly path: string;
}
