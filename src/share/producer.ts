// The writing end of a stream: takes a free slot, fills it, makes it ready, and learns what became of it
// (docs/share-protocol.md, "Frames").
//
// Invariants:
// - A slot is written only while it is ours: free, or ready and taken back before the consumer had it. So both
//   ends never touch one slot at a time, unless the consumer lies, which harms nobody else.
// - Frames are numbered from 1, and every number's fence settles: consumed, dropped, or the consumer is gone.

import assert from 'node:assert/strict';
import { SHARE_SLOT_FREE, SHARE_SLOT_READY } from '../abi/share.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { Condition, Patience } from './condition.ts';
import type { ControlPage } from './control-page.ts';
import type { OfferWriter } from './offer-page.ts';
import { Tempo } from './tempo.ts';

/** What happens to a producer that finds no free slot: it waits, or the oldest frame that nobody took is dropped. */
export type WhenFull = 'wait' | 'drop';

/** What became of a frame. */
export type FrameFate = 'consumed' | 'dropped' | 'consumer-gone';

const NS_PER_MS = 1e6;

/** A frame on its way: passed when the slot is free again. */
export class Fence {
  readonly sequence: number;
  readonly timestampNs: bigint;
  #fate: FrameFate | undefined;
  readonly #onAwaited: () => void;
  #done: Resolvable<FrameFate> | undefined;

  constructor({ sequence, timestampNs, onAwaited }: FenceParts) {
    this.sequence = sequence;
    this.timestampNs = timestampNs;
    this.#onAwaited = onAwaited;
  }

  /** Somebody waits for its fate. */
  get awaited(): boolean {
    return this.#done !== undefined && this.#fate === undefined;
  }

  /** Undefined while the frame is ready or held. */
  get fate(): FrameFate | undefined {
    return this.#fate;
  }

  /** Resolves when nobody will look at the frame any more; never rejects. */
  get done(): Promise<FrameFate> {
    if (this.#fate !== undefined) return Promise.resolve(this.#fate);
    if (this.#done === undefined) {
      this.#done = resolvable<FrameFate>();
      this.#onAwaited();
    }
    return this.#done.promise;
  }

  /** By the producer alone. */
  settle(fate: FrameFate): void {
    assert(this.#fate === undefined, `frame ${this.sequence} ends twice`);
    this.#fate = fate;
    this.#done?.resolve(fate);
  }
}

interface FenceParts extends Pick<Fence, 'sequence' | 'timestampNs'> {
  /** Somebody begins to wait. */
  readonly onAwaited: () => void;
}

interface Resolvable<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
}

function resolvable<T>(): Resolvable<T> {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((resolver) => {
    resolve = resolver;
  });
  return { promise, resolve };
}

export interface PublishedFacts {
  /** Of the frame, from the slot's beginning; the whole slot when left out. */
  readonly byteLength?: number;
  /** The runtime's clock when left out. */
  readonly timestampNs?: bigint;
}

/** A slot that is the caller's to fill, until it is published or discarded. */
export interface WritableFrame {
  readonly slot: number;
  readonly bytes: Uint8Array;
  /** Makes the frame ready for the consumer. */
  publish(facts?: PublishedFacts): Fence;
  /** Gives the slot back, with nothing said. */
  discard(): void;
}

export interface ProducerParts {
  readonly runtime: Runtime;
  readonly offer: OfferWriter;
  readonly control: ControlPage;
  /** The bytes of each slot. */
  readonly slots: readonly Uint8Array[];
  readonly whenFull: WhenFull;
  /** Changes with every event of the share. */
  readonly condition: Condition;
  readonly notify: () => void;
  /** @throws ShareError when the share is over */
  readonly checkOpen: () => void;
  /** The consumer wrote what makes no sense: it is turned out, and told to be gone. */
  readonly onViolation: (violation: ProtocolViolation) => void;
}

/** Where a slot is, from our side: ours and unused, being filled, or published under a fence. */
type Slot = 'idle' | 'writing' | Fence;

export class FrameProducer {
  readonly #parts: ProducerParts;
  readonly #slots: Slot[];
  readonly #tempo: Tempo;
  #lastSequence = 0;
  #dropped = 0n;
  #ended = false;

  constructor(parts: ProducerParts) {
    this.#parts = parts;
    this.#slots = parts.slots.map(() => 'idle');
    this.#tempo = new Tempo(parts.runtime);
  }

  /** Frames that were dropped. */
  get dropped(): number {
    return Number(this.#dropped);
  }

  /** Frames that were published. */
  get published(): number {
    return this.#lastSequence;
  }

  /**
   * A slot to fill. When none is free, waits, or drops the oldest frame that was not taken; with all of them
   * held by the consumer (or being filled) it waits in either case.
   * @throws ShareError `withdrawn`, `closed` when the share is over, `timed-out`
   */
  async acquire(patience?: Patience): Promise<WritableFrame> {
    const early = await this.#tempo.lookAhead(() => this.tryAcquire());
    if (early !== undefined) return early;
    const { condition, control, checkOpen } = this.#parts;
    const look = (): WritableFrame | undefined => {
      checkOpen();
      const found = this.#take();
      if (found !== undefined) return found;
      control.askForEvent('exporter');
      // A slot that became free before the wish was seen makes no event.
      return this.#take();
    };
    return condition.until(look, 'a free slot of the stream', patience);
  }

  /** As `acquire`, at once: undefined when every slot is in use. */
  tryAcquire(): WritableFrame | undefined {
    this.#parts.checkOpen();
    assert(!this.#ended, 'a frame after the end of the stream');
    return this.#take();
  }

  /** No frame follows. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#parts.offer.end();
    this.#wake();
  }

  /** Resolves when every frame that was published is consumed or dropped, or the consumer is gone. */
  async drained(patience?: Patience): Promise<void> {
    const { condition, control, checkOpen } = this.#parts;
    const look = () => {
      checkOpen();
      this.collect();
      if (this.#idle) return true;
      control.askForEvent('exporter');
      this.collect();
      return this.#idle || undefined;
    };
    await condition.until(look, 'the consumer takes the last frames', patience);
  }

  /** Looks which slots the consumer has given back. */
  collect(): void {
    try {
      if (!this.#look()) return;
      this.#parts.control.askForEvent('exporter');
      this.#look();
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#parts.onViolation(error);
    }
  }

  /** @returns whether somebody waits for a frame that is still out */
  #look(): boolean {
    let awaited = false;
    for (let slot = 0; slot < this.#slots.length; slot++) {
      const fence = this.#slots[slot]!;
      if (typeof fence === 'string') continue;
      if (this.#parts.control.stateOf(slot) === SHARE_SLOT_FREE) this.#settle(slot, 'consumed');
      else awaited ||= fence.awaited;
    }
    return awaited;
  }

  /** The consumer is gone: what it held and what it did not take is ours again. */
  consumerGone(): void {
    for (const [slot, state] of this.#slots.entries()) {
      // What it gave back just before it went, of which we have not heard yet, it has consumed.
      const consumed = this.#parts.control.change(slot, SHARE_SLOT_FREE, SHARE_SLOT_FREE);
      this.#parts.control.setState(slot, SHARE_SLOT_FREE);
      if (typeof state !== 'string') this.#settle(slot, consumed ? 'consumed' : 'consumer-gone');
    }
  }

  get #idle(): boolean {
    return this.#slots.every((state) => typeof state === 'string');
  }

  #take(): WritableFrame | undefined {
    this.collect();
    const idle = this.#slots.indexOf('idle');
    if (idle >= 0) return this.#writable(idle);
    if (this.#parts.whenFull === 'wait') return undefined;
    const dropped = this.#dropOldest();
    return dropped === undefined ? undefined : this.#writable(dropped);
  }

  /** Takes the oldest frame back that the consumer has not got. @returns its slot */
  #dropOldest(): number | undefined {
    const published = [...this.#slots.entries()]
      .flatMap(([slot, fence]) => (typeof fence === 'string' ? [] : [{ slot, fence }]))
      .sort((a, b) => a.fence.sequence - b.fence.sequence);
    const oldest = published.find(({ slot }) =>
      this.#parts.control.change(slot, SHARE_SLOT_READY, SHARE_SLOT_FREE),
    );
    if (oldest === undefined) return undefined;
    this.#settle(oldest.slot, 'dropped');
    this.#dropped += 1n;
    this.#parts.offer.countDropped(this.#dropped);
    return oldest.slot;
  }

  #settle(slot: number, fate: FrameFate): void {
    const fence = this.#slots[slot];
    assert(fence instanceof Fence, `slot ${slot} is not published`);
    this.#slots[slot] = 'idle';
    fence.settle(fate);
  }

  #writable(slot: number): WritableFrame {
    this.#slots[slot] = 'writing';
    let open = true;
    const leave = () => {
      assert(open, 'the frame was published or discarded');
      open = false;
    };
    return {
      slot,
      bytes: this.#parts.slots[slot]!,
      publish: (facts = {}) => {
        leave();
        return this.#publish(slot, facts);
      },
      discard: () => {
        leave();
        this.#slots[slot] = 'idle';
        this.#parts.condition.changed();
      },
    };
  }

  #publish(slot: number, facts: PublishedFacts): Fence {
    const { runtime, offer, control, slots, checkOpen } = this.#parts;
    checkOpen();
    const { byteLength = slots[slot]!.length } = facts;
    assert(byteLength >= 0 && byteLength <= slots[slot]!.length, `a frame of ${byteLength} bytes`);
    const timestampNs = facts.timestampNs ?? BigInt(Math.round(runtime.nowMs() * NS_PER_MS));
    const sequence = ++this.#lastSequence;
    const fence = new Fence({ sequence, timestampNs, onAwaited: () => this.collect() });
    this.#slots[slot] = fence;
    offer.describeFrame(slot, { sequence, timestampNs, byteLength });
    control.setState(slot, SHARE_SLOT_READY);
    this.#tempo.beat();
    this.#wake();
    return fence;
  }

  /** An event for a consumer that waits. */
  #wake(): void {
    if (this.#parts.control.takeWish('importer')) this.#parts.notify();
  }
}
