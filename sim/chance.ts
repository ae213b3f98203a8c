// Chance in a run: everybody who draws has a stream of random numbers of its own, which follows from the
// run's seed and the stream's name. So one who is left out, or draws more, changes nobody else's numbers.

import { type Random, SeededRandom } from '../src/runtime/random.ts';
import { hashOf } from './trace.ts';

/** The stream of that name in the run of that seed. */
export function streamOf(seed: number, name: string): Random {
  const folded = (seed ^ Math.floor(seed / 2 ** 32)) >>> 0;
  return new SeededRandom(folded * 2 ** 20 + (hashOf(`${seed} ${name}`) & 0xf_ffff));
}

/** Whether something that happens once in `oneIn` times happens now; never for 0. */
export function happens(random: Random, oneIn: number): boolean {
  return oneIn > 0 && random.below(oneIn) === 0;
}

export function oneOf<T>(random: Random, choices: readonly T[]): T {
  const choice = choices[random.below(choices.length)];
  if (choice === undefined) throw new RangeError('a choice of nothing');
  return choice;
}

/** An integer from `min` to `max`, both included. */
export function between(random: Random, min: number, max: number): number {
  return min + random.below(max - min + 1);
}

/** What may be drawn, and how much more often than something of weight 1. */
export type Weights<K extends string> = Readonly<Record<K, number>>;

export function weighted<K extends string>(random: Random, weights: Weights<K>): K {
  const entries = Object.entries(weights) as [K, number][];
  let at = random.below(entries.reduce((sum, [, weight]) => sum + weight, 0));
  for (const [key, weight] of entries) {
    if (at < weight) return key;
    at -= weight;
  }
  throw new RangeError('weights without a sum');
}
