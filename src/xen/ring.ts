// Both ends of a shared ring of requests and responses (xen/include/public/io/ring.h) over one page.
//
// Indices are free-running unsigned 32-bit numbers, the ring's size is a power of two, and responses
// take the slots of the requests that were consumed.
//
// Invariants:
// - Each end works on private copies of its own indices; from the peer's it reads one number per
//   decision and checks it: a producer that is ahead of what the ring can hold, or goes backwards,
//   is a ProtocolViolation and the end of the ring.
// - A slot is copied once into private memory before anything looks at it (XSA-155), and always
//   written whole, so that nothing of an earlier message stays behind for the peer to misread.
// - Publishing an index is an Atomics.store, which is a full barrier: the slots before it are visible
//   with it, and the threshold that is read after it is not older than it. So no wake-up is lost.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../abi/page.ts';
import { ringSlots, type sring } from '../abi/ring.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import { distrust, type Untrusted } from './untrusted.ts';

/** The declaration of a ring's shared page, as `displSring`. */
export type RingLayout = ReturnType<typeof sring>;

/** Word numbers of the indices and thresholds: the same in every ring. */
const REQ_PROD = 0;
const REQ_EVENT = 1;
const RSP_PROD = 2;
const RSP_EVENT = 3;

/** The shared page, cut up once so that nothing is allocated per message. */
class RingPage {
  readonly size: number;
  readonly slotBytes: number;
  readonly words: Int32Array;
  readonly #slots: readonly Uint8Array[];

  constructor(page: Uint8Array, layout: RingLayout) {
    assert.equal(page.byteLength, PAGE_SIZE, 'a ring lives in one page');
    const { offset, size: slotBytes } = layout.fields.ring;
    this.size = ringSlots(layout, PAGE_SIZE);
    this.slotBytes = slotBytes;
    this.words = new Int32Array(page.buffer, page.byteOffset, PAGE_SIZE / 4);
    this.#slots = Array.from({ length: this.size }, (_, slot) =>
      page.subarray(offset + slot * slotBytes, offset + (slot + 1) * slotBytes),
    );
  }

  load(word: number): number {
    return Atomics.load(this.words, word) >>> 0;
  }

  store(word: number, index: number): void {
    Atomics.store(this.words, word, index | 0);
  }

  /** Whether the threshold in `word` lies in (from, to]: the peer asked to be notified of that. */
  passed(word: number, from: number, to: number): boolean {
    return (to - this.load(word)) >>> 0 < (to - from) >>> 0;
  }

  slotOf(index: number): Uint8Array {
    return this.#slots[index & (this.size - 1)]!;
  }
}

/** Makes a page an empty ring, zeroing it (SHARED_RING_INIT): each end is notified of the first message. */
export function initRing(page: Uint8Array, layout: RingLayout): void {
  const ring = new RingPage(page.fill(0), layout);
  ring.store(REQ_EVENT, 1);
  ring.store(RSP_EVENT, 1);
}

/** The backend's end: consumes requests, produces responses. */
export class BackRing {
  /** Slots of the ring: the most requests that can wait or be worked on at a time. */
  readonly size: number;
  readonly #page: RingPage;
  readonly #copy: Uint8Array;
  readonly #request: Untrusted<DataView>;
  #reqCons: number;
  #rspProd: number;
  #published: number;

  /** Goes on from the responses that the page says were sent. */
  constructor(page: Uint8Array, layout: RingLayout) {
    this.#page = new RingPage(page, layout);
    this.size = this.#page.size;
    this.#copy = new Uint8Array(this.#page.slotBytes);
    this.#request = distrust(new DataView(this.#copy.buffer));
    this.#rspProd = this.#page.load(RSP_PROD);
    this.#reqCons = this.#rspProd;
    this.#published = this.#rspProd;
  }

  /** Requests taken and not answered yet. */
  get unanswered(): number {
    return (this.#reqCons - this.#rspProd) >>> 0;
  }

  /**
   * A private copy of the next request, in a buffer that the following call reuses; undefined when there
   * is none. @throws ProtocolViolation `request-prod-overflow` when the producer's index is impossible
   */
  take(): Untrusted<DataView> | undefined {
    if (!this.#hasRequest()) return undefined;
    this.#copy.set(this.#page.slotOf(this.#reqCons));
    this.#reqCons = (this.#reqCons + 1) >>> 0;
    return this.#request;
  }

  /** Copies a response (one slot's bytes, all of them) into its slot; seen after `push`. */
  put(response: Uint8Array): void {
    assert.equal(response.byteLength, this.#page.slotBytes, 'a response fills its slot');
    assert(this.unanswered > 0, 'a response without a request');
    this.#page.slotOf(this.#rspProd).set(response);
    this.#rspProd = (this.#rspProd + 1) >>> 0;
  }

  /** Publishes what was put; true when the frontend wants to be notified of it. */
  push(): boolean {
    const from = this.#published;
    this.#published = this.#rspProd;
    this.#page.store(RSP_PROD, this.#rspProd);
    return this.#page.passed(RSP_EVENT, from, this.#rspProd);
  }

  /**
   * Asks to be notified of the next request, then looks again: true when one has come in meanwhile.
   * A consumer may stop only after this said false. @throws ProtocolViolation as `take`
   */
  finalCheck(): boolean {
    if (this.#hasRequest()) return true;
    this.#page.store(REQ_EVENT, this.#reqCons + 1);
    return this.#hasRequest();
  }

  #hasRequest(): boolean {
    const prod = this.#page.load(REQ_PROD);
    const waiting = (prod - this.#reqCons) >>> 0;
    if (waiting <= this.size - this.unanswered) return waiting > 0;
    throw new ProtocolViolation(
      'request-prod-overflow',
      'XEN_EIO',
      `request producer ${prod}, consumer ${this.#reqCons}, responses ${this.#rspProd}, size ${this.size}`,
    );
  }
}

/** The frontend's end: produces requests, consumes responses. */
export class FrontRing {
  readonly size: number;
  readonly #page: RingPage;
  readonly #copy: Uint8Array;
  readonly #response: Untrusted<DataView>;
  #reqProd: number;
  #rspCons: number;
  #published: number;

  /** Goes on from the requests that the page says were sent and answered; see `initRing`. */
  constructor(page: Uint8Array, layout: RingLayout) {
    this.#page = new RingPage(page, layout);
    this.size = this.#page.size;
    this.#copy = new Uint8Array(this.#page.slotBytes);
    this.#response = distrust(new DataView(this.#copy.buffer));
    this.#reqProd = this.#page.load(REQ_PROD);
    this.#rspCons = this.#page.load(RSP_PROD);
    this.#published = this.#reqProd;
  }

  /** Requests put and not answered yet. */
  get unanswered(): number {
    return (this.#reqProd - this.#rspCons) >>> 0;
  }

  /** Copies a request (one slot's bytes, all of them) into the ring; false when it is full. */
  put(request: Uint8Array): boolean {
    assert.equal(request.byteLength, this.#page.slotBytes, 'a request fills its slot');
    if (this.unanswered === this.size) return false;
    this.#page.slotOf(this.#reqProd).set(request);
    this.#reqProd = (this.#reqProd + 1) >>> 0;
    return true;
  }

  /** Publishes what was put; true when the backend wants to be notified of it. */
  push(): boolean {
    const from = this.#published;
    this.#published = this.#reqProd;
    this.#page.store(REQ_PROD, this.#reqProd);
    return this.#page.passed(REQ_EVENT, from, this.#reqProd);
  }

  /**
   * A private copy of the next response, in a buffer that the following call reuses; undefined when there
   * is none. @throws ProtocolViolation `response-prod-overflow` when more was answered than was asked
   */
  take(): Untrusted<DataView> | undefined {
    if (!this.#hasResponse()) return undefined;
    this.#copy.set(this.#page.slotOf(this.#rspCons));
    this.#rspCons = (this.#rspCons + 1) >>> 0;
    return this.#response;
  }

  /** Asks to be notified of the next response, then looks again; see `BackRing.finalCheck`. */
  finalCheck(): boolean {
    if (this.#hasResponse()) return true;
    this.#page.store(RSP_EVENT, this.#rspCons + 1);
    return this.#hasResponse();
  }

  #hasResponse(): boolean {
    const prod = this.#page.load(RSP_PROD);
    const waiting = (prod - this.#rspCons) >>> 0;
    if (waiting <= (this.#published - this.#rspCons) >>> 0) return waiting > 0;
    throw new ProtocolViolation(
      'response-prod-overflow',
      'XEN_EIO',
      `response producer ${prod}, consumer ${this.#rspCons}, requests ${this.#published}`,
    );
  }
}
