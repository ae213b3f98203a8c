// Random numbers as a parameter: the system's for real runs, a seeded generator for simulations and
// tests. The seeded one is sfc32 (Chris Doty-Humphrey's Small Fast Counting generator, PractRand):
// integers only, so that a seed gives the same bits on every machine.

import { randomFillSync } from 'node:crypto';

export interface Random {
  /** A uniformly distributed unsigned 32-bit integer. */
  u32(): number;
  /** A uniformly distributed integer in [0, bound); `bound` is in [1, 2^32]. */
  below(bound: number): number;
  /** Fresh bytes. */
  bytes(length: number): Uint8Array;
}

abstract class RandomBase implements Random {
  abstract u32(): number;

  below(bound: number): number {
    return Math.floor((this.u32() / 0x1_0000_0000) * bound);
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.u32() & 0xff);
  }
}

/** The operating system's generator: unguessable, for tokens and ids. */
export class SystemRandom extends RandomBase {
  readonly #word = new Uint32Array(1);

  u32(): number {
    randomFillSync(this.#word);
    return this.#word[0]!;
  }

  override bytes(length: number): Uint8Array {
    return randomFillSync(new Uint8Array(length));
  }
}

/** A generator whose whole future follows from its seed. */
export class SeededRandom extends RandomBase {
  readonly #state = new Uint32Array(4);

  constructor(seed: number) {
    super();
    this.#state.set([0, seed >>> 0, Math.floor(seed / 0x1_0000_0000) >>> 0, 1]);
    for (let round = 0; round < SEED_ROUNDS; round++) this.u32();
  }

  u32(): number {
    const s = this.#state;
    const sum = (s[0]! + s[1]! + s[3]!) >>> 0;
    s[3] = s[3]! + 1;
    s[0] = s[1]! ^ (s[1]! >>> 9);
    s[1] = s[2]! + (s[2]! << 3);
    s[2] = ((s[2]! << 21) | (s[2]! >>> 11)) + sum;
    return sum;
  }
}

/** Rounds thrown away so that nearby seeds give unrelated sequences. */
const SEED_ROUNDS = 12;
