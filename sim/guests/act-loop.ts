// The life of a program that breaks rules: one act of a list after the other, for as long as its domain runs.

import type { Random } from '../../src/runtime/random.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import type { DomId } from '../../src/xen/ids.ts';
import { between, happens, type Weights, weighted } from '../chance.ts';
import type { Program } from '../program.ts';
import type { Surroundings } from '../surroundings.ts';

/** Acts by name, with how often each is chosen. What they are done with is `Hands`. */
export type Acts<Hands> = Readonly<
  Record<string, { readonly act: (hands: Hands) => Promise<void>; readonly weight: number }>
>;

/** Time between two acts, in milliseconds: now and then none at all. */
const BETWEEN_ACTS_MS = [1, 60] as const;
const AT_ONCE_ONE_IN = 4;
/** A pause now and then, in which it answers nothing and nobody. */
const SILENT_ONE_IN = 100;
const SILENT_MS = [500, 8000] as const;

export interface ActLoopParts<Hands> {
  readonly world: Surroundings;
  readonly domid: DomId;
  readonly program: Program;
  readonly random: Random;
  readonly acts: Acts<Hands>;
  readonly hands: Hands;
}

/** Acts on; resolves when the domain is over. */
export async function actOn<Hands>(parts: ActLoopParts<Hands>): Promise<void> {
  const { world, domid, program, random, acts, hands } = parts;
  const weights = weightsOf(acts);
  for (let number = 0; program.alive && world.runs(domid); number++) {
    const name = weighted(random, weights);
    if (!world.omits(`${domid}-${number}`)) {
      world.trace.note(`act ${name}`, domid, number);
      world.oracle.grantsChanged();
      await acts[name]!.act(hands).catch(() => {});
    }
    await pause(program, random);
  }
}

function weightsOf(acts: Acts<never>): Weights<string> {
  return Object.fromEntries(Object.entries(acts).map(([name, { weight }]) => [name, weight]));
}

function pause(program: Program, random: Random): Promise<void> {
  if (happens(random, SILENT_ONE_IN)) return sleep(program, between(random, ...SILENT_MS));
  if (!happens(random, AT_ONCE_ONE_IN)) return sleep(program, between(random, ...BETWEEN_ACTS_MS));
  return new Promise((resolve) => program.defer(resolve));
}
