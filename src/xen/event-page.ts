// One-way rings of events in a shared page (displif.h, kbdif.h): the producer writes whole slots and
// publishes `prod`; the consumer copies each slot once and confirms by publishing `cons`.
//
// Indexes are free-running unsigned 32-bit numbers and slot = index % slots, as the Linux peers compute
// it. The slot counts (63, 51, 25) do not divide 2^32, so the slots jump where the index wraps: 0xffffffff
// and 0 are slots 3 and 0 of 63. Both ends here keep to that formula, or they would not understand a Linux
// peer; the consumer needs nothing else, and the producer does not write the first slots after the wrap
// until the events from before it that lie in the same slots are confirmed.
//
// Invariants:
// - A producer whose consumer must confirm (kbdif) never overwrites an event that is not confirmed.
// - Where confirming is optional (displif: "for each event, group of events or none"), `cons` means
//   nothing and is not read: the newest event takes the oldest slot. That is safe for page flips, because
//   a connector has one flip outstanding, so a frontend that still needs an event has seen those before it.
// - The peer's index is looked at once per decision, and checked: never further away than the ring is long.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../abi/page.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import { distrust, type Untrusted } from './untrusted.ts';

/** Where a ring of events lies in its page; offsets and sizes are bytes. */
export interface EventRingGeometry {
  /** Of the consumer's u32 index; a multiple of 4. */
  readonly consOffset: number;
  /** Of the producer's u32 index; a multiple of 4. */
  readonly prodOffset: number;
  readonly slotsOffset: number;
  readonly slotBytes: number;
  readonly slots: number;
}

/** The page of a ring, cut up once so that nothing is allocated per event. */
class EventRing {
  readonly slots: number;
  readonly slotBytes: number;
  readonly #words: Int32Array;
  readonly #cons: number;
  readonly #prod: number;
  readonly #slots: readonly Uint8Array[];

  constructor(page: Uint8Array, geometry: EventRingGeometry) {
    const { consOffset, prodOffset, slotsOffset, slotBytes, slots } = geometry;
    assert.equal(page.byteLength, PAGE_SIZE, 'an event ring lives in one page');
    assert(slotsOffset + slots * slotBytes <= PAGE_SIZE, 'the slots do not fit the page');
    this.slots = slots;
    this.slotBytes = slotBytes;
    this.#words = new Int32Array(page.buffer, page.byteOffset, PAGE_SIZE / 4);
    this.#cons = consOffset / 4;
    this.#prod = prodOffset / 4;
    this.#slots = Array.from({ length: slots }, (_, slot) =>
      page.subarray(slotsOffset + slot * slotBytes, slotsOffset + (slot + 1) * slotBytes),
    );
  }

  get cons(): number {
    return Atomics.load(this.#words, this.#cons) >>> 0;
  }

  /** Publishing an index is also the barrier: everything written before is visible with it. */
  set cons(index: number) {
    Atomics.store(this.#words, this.#cons, index | 0);
  }

  get prod(): number {
    return Atomics.load(this.#words, this.#prod) >>> 0;
  }

  set prod(index: number) {
    Atomics.store(this.#words, this.#prod, index | 0);
  }

  slotOf(index: number): Uint8Array {
    return this.#slots[index % this.slots]!;
  }
}

export interface EventProducerOptions {
  /** Whether the protocol obliges the consumer to confirm what it has read. */
  readonly confirmation: 'required' | 'optional';
}

/** The end that writes events. Goes on from the index that it finds in the page. */
export class EventProducer {
  readonly #ring: EventRing;
  readonly #confirmed: boolean;
  #prod: number;

  constructor(
    page: Uint8Array,
    geometry: EventRingGeometry,
    { confirmation }: EventProducerOptions,
  ) {
    this.#ring = new EventRing(page, geometry);
    this.#confirmed = confirmation === 'required';
    this.#prod = this.#ring.prod;
  }

  /**
   * Copies `event` (one slot's bytes, every one of them) into the next slot; the consumer sees it after
   * `publish`. False, with nothing done, when the slot holds an event that is not confirmed yet.
   * @throws ProtocolViolation `event-cons-overflow` when the consumer confirmed what was never sent
   */
  put(event: Uint8Array): boolean {
    assert.equal(event.byteLength, this.#ring.slotBytes, 'an event fills its slot');
    if (this.#confirmed && !this.#nextSlotIsFree()) return false;
    this.#ring.slotOf(this.#prod).set(event);
    this.#prod = (this.#prod + 1) >>> 0;
    return true;
  }

  /** Makes what was put visible. The caller notifies: event rings have no threshold to ask first. */
  publish(): void {
    this.#ring.prod = this.#prod;
  }

  #nextSlotIsFree(): boolean {
    const { cons, slots } = this.#ring;
    const prod = this.#prod;
    const unconfirmed = (prod - cons) >>> 0;
    if (unconfirmed > slots) {
      throw new ProtocolViolation(
        'event-cons-overflow',
        'XEN_EIO',
        `consumer index ${cons} with producer index ${prod} in a ring of ${slots}`,
      );
    }
    if (unconfirmed === slots) return false;
    if (prod >= cons) return true;
    // The unconfirmed events lie on both sides of the wrap: whose slot before it is the one wanted now?
    const lastBefore = 0xffff_ffff - ((0xffff_ffff - prod) % slots);
    return lastBefore < cons;
  }
}

/** The end that reads events. Goes on from the index that it finds in the page. */
export class EventConsumer {
  /** Most events that can wait: the bound for one wake-up's loop. */
  readonly slots: number;
  readonly #ring: EventRing;
  readonly #copy: Uint8Array;
  readonly #event: Untrusted<DataView>;
  #cons: number;

  constructor(page: Uint8Array, geometry: EventRingGeometry) {
    this.#ring = new EventRing(page, geometry);
    this.slots = geometry.slots;
    this.#copy = new Uint8Array(geometry.slotBytes);
    this.#event = distrust(new DataView(this.#copy.buffer));
    this.#cons = this.#ring.cons;
  }

  /**
   * A private copy of the next event, in a buffer that the following call reuses; undefined when there
   * is none. @throws ProtocolViolation `event-prod-overflow` when more is announced than the ring holds
   */
  next(): Untrusted<DataView> | undefined {
    const { prod, slots } = this.#ring;
    if (prod === this.#cons) return undefined;
    if ((prod - this.#cons) >>> 0 > slots) {
      throw new ProtocolViolation(
        'event-prod-overflow',
        'XEN_EIO',
        `producer index ${prod} with consumer index ${this.#cons} in a ring of ${slots}`,
      );
    }
    this.#copy.set(this.#ring.slotOf(this.#cons));
    this.#cons = (this.#cons + 1) >>> 0;
    return this.#event;
  }

  /** Tells the producer that everything taken so far may be overwritten. */
  confirm(): void {
    this.#ring.cons = this.#cons;
  }
}
