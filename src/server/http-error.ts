// An answer that is not the one asked for: an HTTP status and one line for the person who asked.

export interface HttpErrorDetails {
  readonly headers?: Readonly<Record<string, string>>;
  /** A short, stable word by which such refusals are counted; left out for ordinary mistakes. */
  readonly reason?: string;
}

export class HttpError extends Error {
  override readonly name = 'HttpError';
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly reason: string | undefined;

  constructor(status: number, message: string, { headers = {}, reason }: HttpErrorDetails = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
    this.reason = reason;
  }
}
