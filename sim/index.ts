// The simulation as a whole, for `xen-zcopy sim`: a run, and what a violation in it comes down to.

import { LIFE_STEPS, type RunReport, runSimulation } from './run.ts';
import { type Shrunk, shrink } from './shrink.ts';

export { type Exploration, explore } from './explore/explore.ts';
export type { RunReport, Shrunk };

export interface SimulationOptions {
  readonly seed: number;
  readonly steps: number;
}

/** Runs the simulation; the report's `violations` are empty when everything held. */
export function simulate(options: SimulationOptions): Promise<RunReport> {
  return runSimulation(options);
}

/** The least of a run that still fails as the run did. @throws RangeError when the run did not fail */
export function shrinkRun(report: RunReport): Promise<Shrunk> {
  const [found] = report.violations;
  if (!found) throw new RangeError('nothing failed');
  const { worldSeed: seed, worldSteps, healed, invariant, detail } = found;
  const steps = healed ? LIFE_STEPS : Math.min(worldSteps, LIFE_STEPS);
  return shrink({ seed, steps, violation: { invariant, detail } });
}
