// The page by which the hypervisor tells a domain of events: pending and mask bits per port, a selector
// of words that have news, and the upcall flag (struct shared_info of xen/include/public/xen.h on LP64,
// the two-level ABI of event channels, one virtual processor).
//
// Both ends use these functions on the same memory, from different threads. What keeps a wake-up from
// being lost: the sender sets the pending bit and then looks at the mask; the receiver clears the mask
// and then looks at the pending bit. And for the upcall: whoever changes its flag from 0 to 1 wakes
// the receiver, which clears it before it looks.

import { EVTCHN_2L_NR_CHANNELS } from '../abi/event-channel.ts';
import { sharedInfo, vcpuInfo } from '../abi/shared-info-x86.ts';
import type { Port } from '../xen/ids.ts';

/** Byte offset of the first (here: only) virtual processor's flag. */
const UPCALL_PENDING = vcpuInfo.fields.evtchn_upcall_pending.offset;
/** First 32-bit words of the bitmaps. */
const SELECTOR = vcpuInfo.fields.evtchn_pending_sel.offset / 4;
const PENDING = sharedInfo.fields.evtchn_pending.offset / 4;
const MASK = sharedInfo.fields.evtchn_mask.offset / 4;

const MASK_WORDS = EVTCHN_2L_NR_CHANNELS / 32;
const SELECTOR_WORDS = 2;
/** The selector has one bit for each 64 ports, that is for two words of 32. */
const WORDS_PER_SELECTOR_BIT = 2;

export class SharedInfo {
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;

  constructor(page: Uint8Array) {
    this.#bytes = page;
    this.#words = new Int32Array(page.buffer, page.byteOffset, page.byteLength / 4);
  }

  /** Marks a port pending. @returns whether the receiver has to be woken */
  raise(port: Port): boolean {
    const bit = 1 << (port & 31);
    const before = Atomics.or(this.#words, PENDING + (port >>> 5), bit);
    if ((before & bit) !== 0) return false;
    if ((Atomics.load(this.#words, MASK + (port >>> 5)) & bit) !== 0) return false;
    return this.#select(port);
  }

  mask(port: Port): void {
    Atomics.or(this.#words, MASK + (port >>> 5), 1 << (port & 31));
  }

  /** Lets a port through again. @returns whether it is pending and the receiver has to be woken */
  unmask(port: Port): boolean {
    const bit = 1 << (port & 31);
    Atomics.and(this.#words, MASK + (port >>> 5), ~bit);
    const pending = (Atomics.load(this.#words, PENDING + (port >>> 5)) & bit) !== 0;
    return pending && this.#select(port);
  }

  clearPending(port: Port): void {
    Atomics.and(this.#words, PENDING + (port >>> 5), ~(1 << (port & 31)));
  }

  maskAll(): void {
    this.#words.fill(-1, MASK, MASK + MASK_WORDS);
  }

  /**
   * The receiver's upcall: acknowledges the wake-up, then calls `deliver` for each port that is
   * pending and not masked, having masked it and cleared its pending bit.
   */
  take(deliver: (port: Port) => void): void {
    Atomics.store(this.#bytes, UPCALL_PENDING, 0);
    for (let half = 0; half < SELECTOR_WORDS; half++) {
      let selected = Atomics.exchange(this.#words, SELECTOR + half, 0);
      while (selected !== 0) {
        const bit = 31 - Math.clz32(selected);
        selected &= ~(1 << bit);
        const word = (half * 32 + bit) * WORDS_PER_SELECTOR_BIT;
        for (let index = word; index < word + WORDS_PER_SELECTOR_BIT; index++) {
          this.#takeWord(index, deliver);
        }
      }
    }
  }

  #takeWord(word: number, deliver: (port: Port) => void): void {
    const masked = Atomics.load(this.#words, MASK + word);
    let ready = Atomics.load(this.#words, PENDING + word) & ~masked;
    while (ready !== 0) {
      const bit = 31 - Math.clz32(ready);
      ready &= ~(1 << bit);
      const port = (word * 32 + bit) as Port;
      this.mask(port);
      this.clearPending(port);
      deliver(port);
    }
  }

  #select(port: Port): boolean {
    const index = port >>> 6;
    Atomics.or(this.#words, SELECTOR + (index >>> 5), 1 << (index & 31));
    return Atomics.exchange(this.#bytes, UPCALL_PENDING, 1) === 0;
  }
}
