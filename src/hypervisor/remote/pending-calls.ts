// The hypercalls of a domain whose code runs elsewhere, from its own side: on their way, or waiting for
// their turn.
//
// Invariants: at most MAX_OUTSTANDING calls are on their way; the others wait here, in their order, MAX_WAITING
// of them. Every call settles: by its answer, or when there will be no answers any more.

import { SysError } from '../../runtime/errors.ts';
import type { HypercallName, HypercallRequest, HypercallResult } from '../hypercalls.ts';
import type { AnswerMessage, CallMessage } from './messages.ts';

const MAX_OUTSTANDING = 64;
const MAX_WAITING = 64 * 1024;

interface PendingCall {
  readonly call: HypercallName;
  readonly request: unknown;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

export interface PendingCallsOptions {
  readonly post: (message: CallMessage) => void;
  /** Whether one more message may be posted now; whoever says no calls `sendWaiting` later. */
  readonly mayPost?: () => boolean;
}

export class PendingCalls {
  readonly #post: (message: CallMessage) => void;
  readonly #mayPost: () => boolean;
  readonly #waiting: PendingCall[] = [];
  readonly #outstanding = new Map<number, PendingCall>();
  #lastId = 0;
  #failure: Error | undefined;

  constructor({ post, mayPost = () => true }: PendingCallsOptions) {
    this.#post = post;
    this.#mayPost = mayPost;
  }

  /** @throws SysError as the hypercall does; EBUSY when too many wait */
  call<N extends HypercallName>(
    name: N,
    request: HypercallRequest<N>,
  ): Promise<HypercallResult<N>> {
    return new Promise((resolve, reject) => {
      if (this.#failure) throw this.#failure;
      if (this.#waiting.length >= MAX_WAITING) throw tooMany(name);
      this.#waiting.push({
        call: name,
        request,
        resolve: (result) => resolve(result as HypercallResult<N>),
        reject,
      });
      this.sendWaiting();
    });
  }

  settle(answer: AnswerMessage): void {
    const pending = this.#outstanding.get(answer.id);
    this.#outstanding.delete(answer.id);
    if ('error' in answer) pending?.reject(new SysError(answer.error));
    else pending?.resolve(answer.result);
    this.sendWaiting();
  }

  sendWaiting(): void {
    while (this.#outstanding.size < MAX_OUTSTANDING && this.#mayPost()) {
      const pending = this.#waiting.shift();
      if (!pending) return;
      const id = ++this.#lastId;
      this.#outstanding.set(id, pending);
      this.#post({ call: pending.call, id, request: pending.request });
    }
  }

  /** There will be no answers any more: every call fails, those to come included. */
  fail(reason: Error): void {
    this.#failure = reason;
    const unanswered = [...this.#outstanding.values(), ...this.#waiting.splice(0)];
    this.#outstanding.clear();
    for (const { reject } of unanswered) reject(reason);
  }
}

function tooMany(call: string): SysError {
  const context = `a hypercall behind ${MAX_WAITING} others that wait`;
  return new SysError({ call, errnoName: 'EBUSY', context });
}
