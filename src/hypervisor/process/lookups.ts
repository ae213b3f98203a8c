// The look-ups of names that a process has made and that are not answered yet.
//
// Invariants: at most MAX_LOOKUPS at a time; each settles: by its answer, by its signal, or when there will be
// no answers any more.

import { SysError } from '../../runtime/errors.ts';
import type { DomId } from '../../xen/ids.ts';
import type { ForgetMessage, LookUpAnswer, LookUpMessage } from './messages.ts';

/** Of one process at a time. */
export const MAX_LOOKUPS = 64;

export interface ResolveOptions {
  /** Waits until there is a domain of that name. */
  readonly wait?: boolean;
  /** Ends the waiting; the look-up rejects with its reason. */
  readonly signal?: AbortSignal;
}

interface PendingLookUp {
  readonly resolve: (domid: DomId) => void;
  readonly reject: (reason: unknown) => void;
}

export class Lookups {
  readonly #post: (message: LookUpMessage | ForgetMessage) => void;
  readonly #pending = new Map<number, PendingLookUp>();
  #lastId = 0;
  #failure: Error | undefined;

  constructor(post: (message: LookUpMessage | ForgetMessage) => void) {
    this.#post = post;
  }

  /** @throws SysError ESRCH when there is no such domain, EBUSY when too many are asked for at a time */
  async resolve(name: string, { wait = false, signal }: ResolveOptions = {}): Promise<DomId> {
    signal?.throwIfAborted();
    if (this.#failure) throw this.#failure;
    if (this.#pending.size >= MAX_LOOKUPS) throw tooMany(name);
    const lookUp = ++this.#lastId;
    const onAbort = () => this.#forget(lookUp, signal?.reason);
    signal?.addEventListener('abort', onAbort);
    try {
      return await new Promise<DomId>((resolve, reject) => {
        this.#pending.set(lookUp, { resolve, reject });
        this.#post({ lookUp, name, wait });
      });
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  settle(answer: LookUpAnswer): void {
    const pending = this.#pending.get(answer.lookUp);
    this.#pending.delete(answer.lookUp);
    if ('error' in answer) pending?.reject(new SysError(answer.error));
    else pending?.resolve(answer.domid);
  }

  /** There will be no answers any more. */
  fail(reason: Error): void {
    this.#failure = reason;
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
  }

  #forget(lookUp: number, reason: unknown): void {
    this.#pending.get(lookUp)?.reject(reason);
    this.#pending.delete(lookUp);
    this.#post({ forget: lookUp });
  }
}

function tooMany(name: string): SysError {
  const context = `looking ${name} up, with ${MAX_LOOKUPS} other names`;
  return new SysError({ call: 'resolve', errnoName: 'EBUSY', context });
}
