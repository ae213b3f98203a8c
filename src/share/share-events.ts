// What an importer is told, as a queue that is read by `for await`.
//
// Invariant: bounded by the shares that there are: of one share, what was not read yet is replaced by what makes it
// old (updated twice is updated; offered and withdrawn is nothing).

import type { OfferedShare } from './offered-share.ts';

export type ShareEventType = 'offered' | 'updated' | 'withdrawn' | 'gone';

export interface ShareEvent {
  readonly type: ShareEventType;
  readonly share: OfferedShare;
  /** Of a withdrawal: how long an open share may be kept, from now on. */
  readonly deadlineMs?: number;
}

export class ShareEvents implements AsyncIterableIterator<ShareEvent> {
  #pending: ShareEvent[] = [];
  #reader: ((result: IteratorResult<ShareEvent>) => void) | undefined;
  #closed = false;

  push(event: ShareEvent): void {
    if (this.#closed) return;
    if (this.#reader !== undefined) {
      const reader = this.#reader;
      this.#reader = undefined;
      reader({ value: event, done: false });
      return;
    }
    const older = this.#pending.filter(({ share }) => share === event.share);
    const untold = older.some(({ type }) => type === 'offered');
    if (event.type === 'updated' && older.length > 0) return;
    this.#pending = this.#pending.filter((pending) => !older.includes(pending));
    const over = event.type === 'withdrawn' || event.type === 'gone';
    if (!(untold && over)) this.#pending.push(event);
  }

  /** One reader at a time. Done once the importer is closed. */
  next(): Promise<IteratorResult<ShareEvent>> {
    const event = this.#pending.shift();
    if (event !== undefined) return Promise.resolve({ value: event, done: false });
    if (this.#closed) return Promise.resolve(DONE);
    this.#reader?.(DONE);
    return new Promise((resolve) => {
      this.#reader = resolve;
    });
  }

  /** The reader has had enough; another may go on. */
  return(): Promise<IteratorResult<ShareEvent>> {
    return Promise.resolve(DONE);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  close(): void {
    this.#closed = true;
    this.#pending = [];
    this.#reader?.(DONE);
    this.#reader = undefined;
  }
}

const DONE: IteratorResult<ShareEvent> = { value: undefined, done: true };
