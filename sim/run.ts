// A run of the simulation: worlds one after the other, each of a life's length, until so many steps are done. All
// of it follows from one seed.

import { performance } from 'node:perf_hooks';
import { SeededRandom } from '../src/runtime/random.ts';
import type { Violation } from './findings.ts';
import { hashOf } from './trace.ts';
import { type Defects, World } from './world.ts';

/** Steps of one world before it is healed and ended. */
export const LIFE_STEPS = 20_000;

export interface RunOptions {
  readonly seed: number;
  /** Steps in which things go wrong; healing and ending the worlds takes some more. */
  readonly steps: number;
  readonly defects?: Defects;
  /** Told of each world that is over. */
  readonly onWorld?: (world: World) => void;
}

/** A violation, and where it is found again. */
export interface FoundViolation extends Violation {
  /** Of the world that it is in. */
  readonly worldSeed: number;
  /** Steps of that world up to it. */
  readonly worldSteps: number;
  /** Whether it came when everything was healed. */
  readonly healed: boolean;
}

export interface RunReport {
  readonly seed: number;
  readonly steps: number;
  readonly stepsPerSecond: number;
  /** Guests that lived. */
  readonly guests: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly violations: readonly FoundViolation[];
  /** Of everything that happened, in its order: the same seed gives the same. */
  readonly digest: string;
}

/** Runs until the steps are done, or something does not hold. */
export async function runSimulation(options: RunOptions): Promise<RunReport> {
  const { stackTraceLimit } = Error;
  // Errors are the daily bread of these worlds; nobody reads the stacks, which take a good part of the time.
  Error.stackTraceLimit = 0;
  try {
    return await runWorlds(options);
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

async function runWorlds({ seed, steps, defects, onWorld }: RunOptions): Promise<RunReport> {
  const seeds = new SeededRandom(seed);
  const faults: Record<string, number> = {};
  const violations: FoundViolation[] = [];
  const totals = { steps: 0, guests: 0, all: 0 };
  const digests: string[] = [];
  const startedAtMs = performance.now();
  while (totals.steps < steps && violations.length === 0) {
    const worldSeed = totals.all === 0 ? seed : seeds.u32();
    const world = await World.open({ seed: worldSeed, ...(defects && { defects }) });
    await liveAndEnd(world, Math.min(LIFE_STEPS, steps - totals.steps));
    const { violation, healed } = { violation: world.violation, healed: world.faults.healed };
    if (violation) violations.push({ ...violation, worldSeed, worldSteps: world.steps, healed });
    for (const [kind, count] of world.faults.counts) faults[kind] = (faults[kind] ?? 0) + count;
    totals.steps += Math.min(world.steps, LIFE_STEPS, steps - totals.steps);
    totals.all += world.steps;
    totals.guests += world.population.born;
    digests.push(world.trace.digest);
    onWorld?.(world);
  }
  const seconds = (performance.now() - startedAtMs) / 1000;
  return {
    seed,
    steps: totals.steps,
    stepsPerSecond: Math.round(totals.all / seconds),
    guests: totals.guests,
    faults,
    violations,
    digest: digestOf(digests),
  };
}

/** A world's whole life: broken, healed, ended. */
export async function liveAndEnd(world: World, steps: number): Promise<void> {
  await world.live(steps - world.steps);
  if (!world.violation) await world.conclude();
}

/** One digest of a run's worlds; that of its only one, where there is one. */
function digestOf(digests: readonly string[]): string {
  if (digests.length === 1) return digests[0]!;
  const text = digests.join(' ');
  return [text, `${text} `].map((part) => hashOf(part).toString(16).padStart(8, '0')).join('');
}
