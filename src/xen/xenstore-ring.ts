// Xenstore's ring page as a byte channel: two rings of 1024 bytes with free-running 32-bit indices
// (xen/include/public/io/xs_wire.h, xenstore_domain_interface), and an event channel that says "look again".
//
// Invariants:
// - Each end keeps private copies of the indices that it moves, and reads the peer's once for a decision: a peer
//   whose index is further away than a ring holds loses the connection, and the page says why.
// - Bytes are copied out before anyone sees them and before the consumer's index gives their place away.
// - An index is published by Atomics.store, a full barrier, and followed by a notification.
// - What does not fit into the ring waits here, MAX_PENDING_BYTES of it; past that the channel breaks.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../abi/page.ts';
import {
  XENSTORE_ERROR_COMM,
  XENSTORE_ERROR_NONE,
  XENSTORE_ERROR_RINGIDX,
  XENSTORE_RING_SIZE,
  XENSTORE_SERVER_FEATURE_ERROR,
  xenstoreInterface,
} from '../abi/xs-wire.ts';
import { ProtocolViolation, SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { ByteListener, PacedByteChannel } from './xenstore.ts';

/** What may wait on our side for room in the ring. */
const MAX_PENDING_BYTES = 1024 * 1024;
/** Looks at the ring in one go before others get their turn. */
const MAX_LOOKS_PER_TURN = 8;

const { req, rsp, req_cons, req_prod, rsp_cons, rsp_prod } = xenstoreInterface.fields;
const { server_features, error: errorField } = xenstoreInterface.fields;

export interface XenstoreRingOptions {
  readonly runtime: Runtime;
  /** The shared page, zeroed by whoever made the domain. */
  readonly page: Uint8Array;
  /** `server` takes requests and sends replies; `guest` is the other end. */
  readonly side: 'server' | 'guest';
  /** Signals the event channel to the other end. */
  readonly notify: () => void;
}

/** One of the page's two rings: where its bytes and its indices are. */
interface Direction {
  readonly bytes: Uint8Array;
  readonly consWord: number;
  readonly prodWord: number;
}

export class XenstoreRing implements PacedByteChannel {
  readonly #runtime: Runtime;
  readonly #side: 'server' | 'guest';
  readonly #notify: () => void;
  readonly #words: Int32Array;
  readonly #in: Direction;
  readonly #out: Direction;
  /** Our indices: bytes taken from #in, bytes put into #out. */
  #cons: number;
  #prod: number;
  readonly #waiting: Uint8Array[] = [];
  #pendingBytes = 0;
  #listener: ByteListener | undefined;
  #paused = false;
  #scheduled = false;
  #closed = false;

  constructor({ runtime, page, side, notify }: XenstoreRingOptions) {
    assert.equal(page.byteLength, PAGE_SIZE, 'xenstore has one page');
    this.#runtime = runtime;
    this.#side = side;
    this.#notify = notify;
    this.#words = new Int32Array(page.buffer, page.byteOffset, PAGE_SIZE / 4);
    const requests = direction(page, { ring: req, cons: req_cons, prod: req_prod });
    const replies = direction(page, { ring: rsp, cons: rsp_cons, prod: rsp_prod });
    this.#in = side === 'server' ? requests : replies;
    this.#out = side === 'server' ? replies : requests;
    this.#prod = this.#load(this.#out.prodWord);
    this.#cons = this.#load(this.#in.consWord);
    if (side === 'server') this.#store(server_features.offset / 4, XENSTORE_SERVER_FEATURE_ERROR);
    else this.#dropStale();
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** The event channel's handler. */
  onEvent(): void {
    this.#work();
  }

  send(bytes: Uint8Array): void {
    if (this.#closed) return;
    if (this.#pendingBytes + bytes.length > MAX_PENDING_BYTES) {
      const context = `xenstore ring: more than ${MAX_PENDING_BYTES} bytes wait`;
      this.#break(new SysError({ call: 'send', errnoName: 'ENOBUFS', context }));
      return;
    }
    this.#waiting.push(new Uint8Array(bytes));
    this.#pendingBytes += bytes.length;
    this.#guarded(() => this.#put());
  }

  listen(listener: ByteListener): void {
    this.#listener = listener;
    this.#workLater();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#workLater();
  }

  close(): void {
    this.#finish(XENSTORE_ERROR_COMM, undefined);
  }

  /** Sends what waits as far as there is room, and takes what has come. */
  #work(): void {
    if (this.#closed) return;
    this.#guarded(() => {
      this.#checkPeer();
      const hadPending = this.#pendingBytes > 0;
      this.#put();
      if (hadPending && this.#pendingBytes === 0) this.#listener?.onDrain?.();
      for (let look = 0; look < MAX_LOOKS_PER_TURN; look++) {
        if (this.#closed || this.#paused || !this.#listener || !this.#take()) return;
      }
      this.#workLater();
    });
  }

  #workLater(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    this.#runtime.defer(() => {
      this.#scheduled = false;
      this.#work();
    });
  }

  /** Whether there was something. */
  #take(): boolean {
    const prod = this.#load(this.#in.prodWord);
    const available = distance({ from: this.#cons, to: prod, what: 'producer' });
    if (available === 0) return false;
    const piece = new Uint8Array(available);
    const { at, run } = this.#span(this.#cons, available);
    piece.set(this.#in.bytes.subarray(at, at + run));
    piece.set(this.#in.bytes.subarray(0, available - run), run);
    this.#cons = prod;
    this.#store(this.#in.consWord, prod);
    this.#notify();
    this.#listener?.onBytes(piece);
    return true;
  }

  #put(): void {
    const cons = this.#load(this.#out.consWord);
    let room = XENSTORE_RING_SIZE - distance({ from: cons, to: this.#prod, what: 'consumer' });
    const before = this.#prod;
    for (let next = this.#waiting[0]; next && room > 0; next = this.#waiting[0]) {
      const piece = next.subarray(0, room);
      const { at, run } = this.#span(this.#prod, piece.length);
      this.#out.bytes.set(piece.subarray(0, run), at);
      this.#out.bytes.set(piece.subarray(run), 0);
      this.#prod = (this.#prod + piece.length) >>> 0;
      room -= piece.length;
      if (piece.length === next.length) this.#waiting.shift();
      else this.#waiting[0] = next.subarray(piece.length);
    }
    const sent = (this.#prod - before) >>> 0;
    if (sent === 0) return;
    this.#pendingBytes -= sent;
    this.#store(this.#out.prodWord, this.#prod);
    this.#notify();
  }

  /** Where `length` bytes from `index` on begin in the ring, and how many come before its end. */
  #span(index: number, length: number): { at: number; run: number } {
    const at = index & (XENSTORE_RING_SIZE - 1);
    return { at, run: Math.min(length, XENSTORE_RING_SIZE - at) };
  }

  /** A guest that starts anew is not interested in what the one before it was told. */
  #dropStale(): void {
    this.#cons = this.#load(this.#in.prodWord);
    this.#store(this.#in.consWord, this.#cons);
  }

  /** A guest learns from the page that the server has given up on it. */
  #checkPeer(): void {
    const code = this.#load(errorField.offset / 4);
    if (this.#side === 'server' || code === XENSTORE_ERROR_NONE) return;
    const context = `xenstore ring: the server closed it (error ${code})`;
    throw new SysError({ call: 'send', errnoName: 'ECONNRESET', context });
  }

  #guarded(step: () => void): void {
    try {
      step();
    } catch (error) {
      if (!(error instanceof ProtocolViolation || error instanceof SysError)) throw error;
      this.#break(error);
    }
  }

  #break(reason: ProtocolViolation | SysError): void {
    const indices = reason instanceof ProtocolViolation;
    this.#finish(indices ? XENSTORE_ERROR_RINGIDX : XENSTORE_ERROR_COMM, reason);
  }

  #finish(code: number, reason: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#waiting.length = 0;
    this.#pendingBytes = 0;
    if (this.#side === 'server') {
      this.#store(errorField.offset / 4, code);
      this.#notify();
    }
    this.#listener?.onClose(reason);
  }

  #load(word: number): number {
    return Atomics.load(this.#words, word) >>> 0;
  }

  #store(word: number, value: number): void {
    Atomics.store(this.#words, word, value | 0);
  }
}

interface Place {
  readonly offset: number;
  readonly size: number;
}

function direction(page: Uint8Array, at: { ring: Place; cons: Place; prod: Place }): Direction {
  return {
    bytes: page.subarray(at.ring.offset, at.ring.offset + at.ring.size),
    consWord: at.cons.offset / 4,
    prodWord: at.prod.offset / 4,
  };
}

/** Bytes between a consumer's and a producer's index. @throws ProtocolViolation when a ring cannot hold them */
function distance({ from, to, what }: { from: number; to: number; what: string }): number {
  const bytes = (to - from) >>> 0;
  if (bytes <= XENSTORE_RING_SIZE) return bytes;
  const detail = `the peer's ${what} is ${bytes} bytes away from ours`;
  throw new ProtocolViolation('xenstore-ring-index', 'XEN_EINVAL', detail);
}
