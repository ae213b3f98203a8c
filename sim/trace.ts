// What happened in a run: a running hash of every event, which is the run's digest, and, when somebody
// wants to read it, the last events as lines.
//
// Invariant: the digest depends on the order of events and on all of their numbers, and on nothing else; so two
// runs with the same digest did the same things in the same order.

/** Lines that are kept of a run that is to be read. */
const LINES_MAX = 400;

/** The prime of FNV-1a (Fowler, Noll, Vo), for strings, which are few and hashed once each. */
const FNV_PRIME = 0x0100_0193;
const FNV_OFFSET = 0x811c_9dc5;
/** Multipliers of the two halves of the digest: odd, with their bits well spread. */
const LOW_MULTIPLIER = 0x9e37_79b1;
const HIGH_MULTIPLIER = 0x85eb_ca6b;
/** Virtual times are compared to the microsecond. */
const TICKS_PER_MS = 1000;

export class Trace {
  #low = FNV_OFFSET;
  #high = FNV_PRIME;
  #step = 0;
  #nowMs = 0;
  readonly #words = new Map<string, number>();
  readonly #lines: string[] | undefined;

  /** `readable` keeps the last lines, which costs time. */
  constructor({ readable }: { readable: boolean }) {
    this.#lines = readable ? [] : undefined;
  }

  /** Sixteen hexadecimal digits that stand for everything noted so far. */
  get digest(): string {
    return hex(this.#high) + hex(this.#low);
  }

  /** The last events, oldest first; none unless the trace is readable. */
  get lines(): readonly string[] {
    return this.#lines ?? [];
  }

  /** A scheduler step is over: how late it is now, and how many tasks wait to run. */
  step(nowMs: number, runnable: number): void {
    this.#step += 1;
    this.#nowMs = nowMs;
    this.#mix((nowMs * TICKS_PER_MS) | 0);
    this.#mix(runnable);
  }

  /** Something happened; `what` is a word of the program's, the numbers are its particulars. */
  note(what: string, ...numbers: readonly number[]): void {
    this.#mix(this.#wordHash(what));
    for (const number of numbers) this.#mix(number | 0);
    this.#lines && this.#keep(`${what}${numbers.length > 0 ? ` ${numbers.join(' ')}` : ''}`);
  }

  #keep(text: string): void {
    const lines = this.#lines!;
    lines.push(
      `${String(this.#step).padStart(7)} ${this.#nowMs.toFixed(1).padStart(10)} ms  ${text}`,
    );
    if (lines.length > LINES_MAX) lines.shift();
  }

  #mix(word: number): void {
    this.#low = Math.imul(this.#low ^ word, LOW_MULTIPLIER);
    this.#low ^= this.#low >>> 15;
    this.#high = Math.imul(this.#high ^ this.#low ^ (word >>> 16), HIGH_MULTIPLIER);
    this.#high ^= this.#high >>> 13;
  }

  #wordHash(word: string): number {
    let hash = this.#words.get(word);
    if (hash !== undefined) return hash;
    hash = hashOf(word);
    this.#words.set(word, hash);
    return hash;
  }
}

/** FNV-1a of a string's UTF-16 units. */
export function hashOf(text: string): number {
  let hash = FNV_OFFSET;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), FNV_PRIME);
  }
  return hash >>> 0;
}

function hex(word: number): string {
  return (word >>> 0).toString(16).padStart(8, '0');
}
