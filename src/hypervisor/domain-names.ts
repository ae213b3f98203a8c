// The names of the domains that run, and whoever waits for one to appear.
//
// Invariants: a domain is here from the moment its home is written until it does not run any more; of two with
// one name the older is found; who waits is told or gives up by a signal.

import type { DomId } from '../xen/ids.ts';

export class DomainNames {
  /** In the order of their age. */
  readonly #names = new Map<DomId, string>();
  readonly #waiting = new Set<() => void>();

  add(domid: DomId, name: string): void {
    this.#names.set(domid, name);
    for (const look of [...this.#waiting]) look();
  }

  remove(domid: DomId): void {
    this.#names.delete(domid);
  }

  find(name: string): DomId | undefined {
    for (const [domid, found] of this.#names) if (found === name) return domid;
    return undefined;
  }

  /** Resolves when there is a domain of that name; rejects with the signal's reason. */
  appears(name: string, signal: AbortSignal): Promise<DomId> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const look = () => {
        const domid = this.find(name);
        if (domid === undefined) return;
        stop();
        resolve(domid);
      };
      const onAbort = () => {
        stop();
        reject(signal.reason);
      };
      const stop = () => {
        this.#waiting.delete(look);
        signal.removeEventListener('abort', onAbort);
      };
      this.#waiting.add(look);
      signal.addEventListener('abort', onAbort);
      look();
    });
  }
}
