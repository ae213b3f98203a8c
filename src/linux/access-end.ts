// How another domain's access to pages of ours ends, seen in our grant table where this host lets us look.
//
// Invariants:
// - The kernel calls the end of access a success while the other domain still maps pages, and says nothing.
//   So where we can look, access ends once no page is mapped, and it is over once no entry is left.
// - Access is ended until that has succeeded once. A try never waits.

import type { GivenBack } from '../xen/memory.ts';
import type { WatchedGrants } from './grant-observer.ts';

export interface AccessEndParts {
  /**
   * Asked at the first try, before access ends; undefined where nobody can look.
   * @throws SysError when the table cannot be read: the next try asks again
   */
  readonly watch: () => WatchedGrants | undefined;
  /** Ends access; called again when it has thrown. @throws SysError */
  readonly endAccess: () => void;
}

/** `ending`: nobody mapped the pages, and access is to end; `ended`: it has, and entries may be left. */
type State = 'given' | 'ending' | 'ended' | 'over';

export class AccessEnd {
  readonly #parts: AccessEndParts;
  #state: State = 'given';
  #looked: { readonly watched: WatchedGrants | undefined } | undefined;

  constructor(parts: AccessEndParts) {
    this.#parts = parts;
  }

  /** One try; to be called again until nothing is held. @throws SysError, and then to be called again */
  end(): GivenBack {
    if (this.#state === 'over') return this.#held(0);
    this.#looked ??= { watched: this.#parts.watch() };
    const { watched } = this.#looked;
    if (this.#state === 'given') {
      const mapped = watched?.mapped() ?? 0;
      if (mapped > 0) return this.#held(mapped);
    }
    this.#endAccess();
    // Somebody may have mapped a page after the look and before the end.
    const left = watched?.left() ?? 0;
    if (left === 0) this.#state = 'over';
    return this.#held(left);
  }

  /** Ends access whoever maps what: the kernel does what is left to do. @throws SysError, and then to be called again */
  abandon(): void {
    if (this.#state === 'over') return;
    this.#endAccess();
    this.#state = 'over';
  }

  #endAccess(): void {
    if (this.#state === 'ended') return;
    this.#state = 'ending';
    this.#parts.endAccess();
    this.#state = 'ended';
  }

  #held(heldPages: number): GivenBack {
    return { heldPages, evidence: this.#looked?.watched === undefined ? 'driver' : 'grant table' };
  }
}
