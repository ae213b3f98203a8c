// How a guest in another thread or process tells the hypervisor of notifications without a message for each:
// a bit per port in shared memory, and one message when the first bit is set.
//
// Invariant: at most one wake-up message is on its way. The guest sets the bit, then the flag, and posts
// only when it changed the flag from 0 to 1; the hypervisor clears the flag before it looks at the bits,
// so a bit is either seen by the look or has a message of its own.

import { EVTCHN_2L_NR_CHANNELS } from '../../abi/event-channel.ts';
import type { Port } from '../../xen/ids.ts';

const BIT_WORDS = EVTCHN_2L_NR_CHANNELS / 32;
/** One bit for each word of bits that has news, as in the shared info page. */
const SELECTOR_WORDS = BIT_WORDS / 32;
const FLAG = 0;
const SELECTOR = 1;
const BITS = SELECTOR + SELECTOR_WORDS;

const BYTES = (BITS + BIT_WORDS) * 4;

export class Doorbell {
  readonly #words: Int32Array;

  /** Memory that both sides look at: one page is enough. */
  constructor(memory: ArrayBufferLike) {
    this.#words = new Int32Array(memory, 0, BYTES / 4);
  }

  /** Memory for a doorbell between threads, zeroed. */
  static memory(): SharedArrayBuffer {
    return new SharedArrayBuffer(BYTES);
  }

  /** Marks a port. @returns whether the other side has to be woken */
  ring(port: Port): boolean {
    const word = port >>> 5;
    Atomics.or(this.#words, BITS + word, 1 << (port & 31));
    Atomics.or(this.#words, SELECTOR + (word >>> 5), 1 << (word & 31));
    return Atomics.exchange(this.#words, FLAG, 1) === 0;
  }

  /** Acknowledges the wake-up and calls `send` for each port that was marked. */
  take(send: (port: Port) => void): void {
    if (Atomics.exchange(this.#words, FLAG, 0) === 0) return;
    for (let index = 0; index < SELECTOR_WORDS; index++) {
      let selected = Atomics.exchange(this.#words, SELECTOR + index, 0);
      while (selected !== 0) {
        const bit = 31 - Math.clz32(selected);
        selected &= ~(1 << bit);
        this.#takeWord(index * 32 + bit, send);
      }
    }
  }

  #takeWord(word: number, send: (port: Port) => void): void {
    let marked = Atomics.exchange(this.#words, BITS + word, 0);
    while (marked !== 0) {
      const bit = 31 - Math.clz32(marked);
      marked &= ~(1 << bit);
      send((word * 32 + bit) as Port);
    }
  }
}
