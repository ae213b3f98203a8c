// The reading end of a stream: takes the frames in their order, shows each in place, and gives its slot back
// (docs/share-protocol.md, "Frames").
//
// Invariants: a frame is read only while its slot is held; its description is copied once, after that, and
// checked; numbers only rise, gaps are frames that were dropped.

import { SHARE_SLOT_FREE, SHARE_SLOT_HELD, SHARE_SLOT_READY } from '../abi/share.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { DmaBuf } from '../xen/memory.ts';
import type { SharedBuffer } from '../zcopy/shared-buffer.ts';
import type { Condition, Patience } from './condition.ts';
import type { ControlPage } from './control-page.ts';
import type { FrameFacts, OfferReader } from './offer-page.ts';
import { Tempo } from './tempo.ts';

/** A frame that is the caller's to read, until it is released. */
export interface ReadableFrame extends FrameFacts {
  readonly slot: number;
  /** In place, not copied. */
  readonly bytes: Uint8Array;
  /** For drivers of this host, where it was asked for and could be had. */
  readonly memory: DmaBuf | undefined;
  /** Gives the slot back to the producer; a second time does nothing. */
  release(): void;
}

export interface AcquireOptions extends Patience {
  /** Takes the newest frame and gives back the ones before it: for who shows and not records. */
  readonly latest?: boolean;
}

export interface ConsumerParts {
  readonly runtime: Runtime;
  readonly offer: OfferReader;
  readonly control: ControlPage;
  readonly slotBytes: number;
  readonly slots: readonly SharedBuffer[];
  /** Changes with every event of the share. */
  readonly condition: Condition;
  readonly notify: () => void;
  /** @throws ShareError when the share is over on our side */
  readonly checkOpen: () => void;
  /** @throws ShareError when the producer is gone, and with it the frames that are still to come */
  readonly checkProducer: () => void;
  /** Told of a violation before the caller is. */
  readonly onViolation: (violation: ProtocolViolation) => void;
}

/** A slot that was seen to be ready, and with which frame. */
interface ReadySlot {
  readonly slot: number;
  readonly sequence: bigint;
}

/** How often a frame that is chosen may be taken back by the producer before we look anew by event. */
const MAX_TAKE_TRIES = 64;

export class FrameConsumer implements AsyncIterable<ReadableFrame> {
  readonly #parts: ConsumerParts;
  readonly #tempo: Tempo;
  #lastSequence = 0;
  #skipped = 0;

  constructor(parts: ConsumerParts) {
    this.#parts = parts;
    this.#tempo = new Tempo(parts.runtime);
  }

  /** Frames between those taken that we never got: dropped by the producer, or passed over here. */
  get skipped(): number {
    return this.#skipped;
  }

  /**
   * The next frame; undefined when the stream has ended and every frame of it was taken.
   * @throws ShareError `exporter-gone`, `withdrawn`, `closed`, `timed-out`
   * @throws ProtocolViolation when the producer wrote what makes no sense
   */
  async acquire(options: AcquireOptions = {}): Promise<ReadableFrame | undefined> {
    const early = await this.#tempo.lookAhead(() => this.tryAcquire(options));
    if (early !== undefined) return early;
    const { condition } = this.#parts;
    const look = () => this.#violations(() => this.#look(options));
    const found = await condition.until(look, 'the next frame of the stream', options);
    return found === 'end' ? undefined : found;
  }

  #look(options: AcquireOptions): ReadableFrame | 'end' | undefined {
    const { offer, control, checkOpen, checkProducer } = this.#parts;
    checkOpen();
    // Before the frames are looked at: none comes after the end.
    const { ended } = offer;
    const frame = this.#take(options);
    if (frame !== undefined) return frame;
    if (ended) return 'end';
    checkProducer();
    control.askForEvent('importer');
    return this.#take(options);
  }

  /** As `acquire`, at once: undefined when no frame is ready. */
  tryAcquire(options: Pick<AcquireOptions, 'latest'> = {}): ReadableFrame | undefined {
    this.#parts.checkOpen();
    return this.#violations(() => this.#take(options));
  }

  /** Every frame in its order, released when the loop asks for the next one. */
  async *[Symbol.asyncIterator](): AsyncGenerator<ReadableFrame> {
    for (;;) {
      const frame = await this.acquire();
      if (frame === undefined) return;
      try {
        yield frame;
      } finally {
        frame.release();
      }
    }
  }

  #violations<T>(look: () => T): T {
    try {
      return look();
    } catch (error) {
      if (error instanceof ProtocolViolation) this.#parts.onViolation(error);
      throw error;
    }
  }

  #take({ latest = false }: Pick<AcquireOptions, 'latest'>): ReadableFrame | undefined {
    const { control } = this.#parts;
    for (let attempt = 0; attempt < MAX_TAKE_TRIES; attempt++) {
      const chosen = this.#next(latest);
      if (chosen === undefined) return undefined;
      const { slot, sequence } = chosen;
      if (!control.change(slot, SHARE_SLOT_READY, SHARE_SLOT_HELD)) continue;
      const facts = this.#parts.offer.frame(slot, this.#parts.slotBytes);
      if (facts.sequence === Number(sequence)) return this.#held(slot, facts, latest);
      // The producer had taken it back and filled it anew: it is not the one whose turn it is.
      control.setState(slot, SHARE_SLOT_READY);
    }
    return undefined;
  }

  /**
   * The frame whose turn it is. Frames become ready while the slots are looked at, so one with a lower number may
   * be in a slot that was passed already; it was ready before the one that was found, so a second look sees it.
   */
  #next(latest: boolean): ReadySlot | undefined {
    const found = this.#choose(latest);
    if (found === undefined || latest) return found;
    return found.sequence === BigInt(this.#lastSequence + 1) ? found : this.#choose(latest);
  }

  /** The oldest frame that is ready, or the newest, as it was seen: it may be another one by now. */
  #choose(latest: boolean): ReadySlot | undefined {
    let best: ReadySlot | undefined;
    for (let slot = 0; slot < this.#parts.slots.length; slot++) {
      if (this.#parts.control.stateOf(slot) !== SHARE_SLOT_READY) continue;
      const sequence = this.#parts.offer.sequenceOf(slot);
      if (best !== undefined && sequence > best.sequence !== latest) continue;
      best = { slot, sequence };
    }
    return best;
  }

  #held(slot: number, facts: FrameFacts, latest: boolean): ReadableFrame {
    const { sequence } = facts;
    if (sequence <= this.#lastSequence) {
      const detail = `frame ${sequence} after frame ${this.#lastSequence}`;
      throw new ProtocolViolation('sequence-went-back', 'XEN_EINVAL', detail);
    }
    if (this.#lastSequence > 0) this.#skipped += sequence - this.#lastSequence - 1;
    this.#lastSequence = sequence;
    this.#tempo.beat();
    if (latest) this.#passOver(sequence);
    const buffer = this.#parts.slots[slot]!;
    let open = true;
    return {
      ...facts,
      slot,
      bytes: buffer.bytes.subarray(0, facts.byteLength),
      memory: buffer.memory,
      release: () => {
        if (open) this.#giveBack(slot, SHARE_SLOT_HELD);
        open = false;
      },
    };
  }

  /** Gives back the frames that are older than the one that is shown. */
  #passOver(sequence: number): void {
    for (let slot = 0; slot < this.#parts.slots.length; slot++) {
      if (this.#parts.control.stateOf(slot) !== SHARE_SLOT_READY) continue;
      if (this.#parts.offer.sequenceOf(slot) < sequence) this.#giveBack(slot, SHARE_SLOT_READY);
    }
  }

  #giveBack(slot: number, from: typeof SHARE_SLOT_HELD | typeof SHARE_SLOT_READY): void {
    const { control, notify } = this.#parts;
    if (control.change(slot, from, SHARE_SLOT_FREE) && control.takeWish('exporter')) notify();
  }
}
