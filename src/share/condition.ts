// Waiting for something that others change: whoever changes it says so, and everyone who waits looks again.
//
// Invariant: a wait ends by its condition, its time or its signal, and leaves no listener behind.

import type { Runtime, Timer } from '../runtime/runtime.ts';
import { ShareError } from './share-error.ts';

/** How long to wait, and by what else the waiting ends. */
export interface Patience {
  /** Without it, as long as it takes. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export class Condition {
  readonly #runtime: Runtime;
  readonly #waiting = new Set<() => void>();

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  /** Something may have changed. */
  changed(): void {
    for (const look of [...this.#waiting]) look();
  }

  /**
   * What `look` gives, once that is not undefined; what it throws is thrown.
   * @throws ShareError `timed-out` naming `what`, or the signal's reason
   */
  until<T>(look: () => T | undefined, what: string, patience: Patience = {}): Promise<T> {
    return new Promise((resolve, reject) => {
      const { timeoutMs, signal } = patience;
      let timer: Timer | undefined;
      const leave = () => {
        this.#waiting.delete(again);
        timer?.cancel();
        signal?.removeEventListener('abort', abort);
      };
      const fail = (error: unknown) => {
        leave();
        reject(error);
      };
      const abort = () => fail(signal?.reason);
      const again = () => {
        try {
          const found = look();
          if (found === undefined) return;
          leave();
          resolve(found);
        } catch (error) {
          fail(error);
        }
      };
      if (signal?.aborted) return abort();
      this.#waiting.add(again);
      signal?.addEventListener('abort', abort, { once: true });
      if (timeoutMs !== undefined) {
        const late = new ShareError('timed-out', `gave up after ${timeoutMs} ms: ${what}`);
        timer = this.#runtime.after(timeoutMs, () => fail(late));
      }
      again();
    });
  }
}
