// What the caller of `share/` can run into because of the other domain: its state, its word, its policy.

/** A short, stable word for what happened. */
export type ShareErrorReason =
  /** No such share is offered to us: never made, of other domains, or not ours to see. */
  | 'unknown-id'
  | 'withdrawn'
  /** Somebody in this domain has it open. */
  | 'in-use'
  | 'exporter-gone'
  | 'importer-gone'
  /** The other domain's policy (or ours, at the importer) refuses it. */
  | 'refused'
  | 'over-budget'
  | 'unsupported-version'
  | 'oversized-metadata'
  /** What the other domain wrote makes no sense. */
  | 'malformed'
  /** It is offered for reading. */
  | 'not-writable'
  | 'not-a-stream'
  /** Used after it was closed by ourselves. */
  | 'closed'
  | 'timed-out';

/** The other domain does not do what we asked of it; the message says what and why, in one line. */
export class ShareError extends Error {
  override readonly name = 'ShareError';
  readonly reason: ShareErrorReason;

  constructor(reason: ShareErrorReason, detail: string) {
    super(detail);
    this.reason = reason;
  }
}
