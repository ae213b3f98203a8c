// Two byte channels back to back inside this process: what one end sends, the other gets.
//
// Invariants: bytes arrive in the order in which they were sent, always by a task of the runtime, never
// from inside `send`; a side that does not take what it gets has at most MAX_PENDING_BYTES waiting,
// then the pipe breaks; both ends hear of the end once, after everything that was sent before it.

import { SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { ByteListener, PacedByteChannel } from './xenstore.ts';

/** What may wait in one direction. */
const MAX_PENDING_BYTES = 1024 * 1024;

class PipeEnd implements PacedByteChannel {
  readonly #runtime: Runtime;
  #peer: PipeEnd | undefined;
  #listener: ByteListener | undefined;
  /** What the peer sent and our listener has not got yet. */
  #inbox: Uint8Array[] = [];
  #inboxBytes = 0;
  #paused = false;
  #scheduled = false;
  #closed = false;
  /** Set when the peer is gone: told once the inbox is empty. */
  #over: { readonly reason: Error } | undefined;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  connect(peer: PipeEnd): void {
    this.#peer = peer;
  }

  get pendingBytes(): number {
    return this.#peer ? this.#peer.#inboxBytes : 0;
  }

  send(bytes: Uint8Array): void {
    if (!this.#peer) return;
    if (this.pendingBytes + bytes.length > MAX_PENDING_BYTES) {
      this.#break();
      return;
    }
    this.#peer.#put(Buffer.from(bytes));
  }

  listen(listener: ByteListener): void {
    this.#listener = listener;
    this.#schedule();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#schedule();
  }

  close(): void {
    if (this.#closed) return;
    const peer = this.#peer;
    this.#finish(undefined);
    if (peer) peer.#end(pipeError('EPIPE', 'the other end closed'));
  }

  #put(bytes: Uint8Array): void {
    this.#inbox.push(bytes);
    this.#inboxBytes += bytes.length;
    this.#schedule();
  }

  /** The peer is gone: what it had not taken is no longer pending, what it sent is still delivered. */
  #end(reason: Error): void {
    this.#over ??= { reason };
    this.#peer = undefined;
    this.#schedule();
    this.#drained();
  }

  #drained(): void {
    this.#listener?.onDrain?.();
  }

  /** Both ends are over at once, paused or not. */
  #break(): void {
    const reason = pipeError('ENOBUFS', `more than ${MAX_PENDING_BYTES} bytes were not taken`);
    for (const end of [this.#peer, this]) {
      if (!end) continue;
      end.#inbox = [];
      end.#inboxBytes = 0;
      end.#paused = false;
      end.#end(reason);
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#closed || this.#paused || !this.#listener) return;
    if (this.#inbox.length === 0 && !this.#over) return;
    this.#scheduled = true;
    this.#runtime.defer(() => {
      this.#scheduled = false;
      this.#deliver();
    });
  }

  /** Hands over one piece a task, so that the scheduler can put other work in between. */
  #deliver(): void {
    if (this.#closed || this.#paused) return;
    const bytes = this.#inbox.shift();
    if (bytes) {
      this.#inboxBytes -= bytes.length;
      this.#listener?.onBytes(bytes);
      if (this.#inboxBytes === 0 && this.#peer) this.#peer.#drained();
    } else if (this.#over) {
      this.#finish(this.#over.reason);
    }
    this.#schedule();
  }

  #finish(reason: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#inbox = [];
    this.#inboxBytes = 0;
    this.#peer = undefined;
    this.#listener?.onClose(reason);
  }
}

function pipeError(errnoName: string, context: string): SysError {
  return new SysError({ call: 'send', errnoName, context: `pipe: ${context}` });
}

/** Two connected ends; whatever one sends, the other's listener gets by a task of `runtime`. */
export function bytePipe(runtime: Runtime): readonly [PacedByteChannel, PacedByteChannel] {
  const ends = [new PipeEnd(runtime), new PipeEnd(runtime)] as const;
  ends[0].connect(ends[1]);
  ends[1].connect(ends[0]);
  return ends;
}
