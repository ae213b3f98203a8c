// How many steps of the simulation's scheduler a second: while its code is being compiled, once it is, and, as the limit
// of what is there to be had, of a scheduler whose tasks do nothing. A step per second of processor time is
// what one core does, threads that compile and collect garbage included.

import { runSimulation } from '../sim/run.ts';
import type { World } from '../sim/world.ts';
import { systemRuntime } from '../src/runtime/runtime.ts';
import { VirtualRuntime } from '../src/runtime/virtual.ts';

const SEEDS = [1, 2, 5];
/** Steps of the first seed until about everything that is hot has been compiled. */
const COLD_STEPS = 400_000;
const WARM_STEPS = 600_000;
const BARE_STEPS = 2_000_000;
/** Tasks of the bare scheduler that wait at a time. */
const BARE_TASKS = 8;

/** What was done in how much time, of the clock and of processors. */
class Stretch {
  steps = 0;
  readonly #runtime = systemRuntime();
  readonly #startMs = this.#runtime.nowMs();
  readonly #cpu = process.cpuUsage();

  figures(name: string): Record<string, number> {
    const seconds = (this.#runtime.nowMs() - this.#startMs) / 1000;
    const { user, system } = process.cpuUsage(this.#cpu);
    return {
      [`${name}_steps_per_second`]: this.steps / seconds,
      [`${name}_steps_per_cpu_second`]: this.steps / ((user + system) / 1_000_000),
    };
  }
}

/** Figures by name; the unit is at the end of the name. */
export async function benchSim(): Promise<Record<string, number>> {
  const figures: Record<string, number> = {};
  Object.assign(figures, await worlds('cold', { seed: SEEDS[0]!, steps: COLD_STEPS }));
  for (const seed of SEEDS) {
    Object.assign(figures, await worlds(`seed_${seed}`, { seed, steps: WARM_STEPS }));
  }
  return { ...figures, ...(await bareScheduler()) };
}

async function worlds(name: string, run: { readonly seed: number; readonly steps: number }) {
  const stretch = new Stretch();
  const onWorld = ({ steps }: World) => {
    stretch.steps += steps;
  };
  const { violations } = await runSimulation({ ...run, onWorld });
  if (violations.length > 0) throw new Error(`seed ${run.seed} broke ${violations[0]!.invariant}`);
  return stretch.figures(name);
}

/** The scheduler alone: each task does nothing but to be there again. */
async function bareScheduler(): Promise<Record<string, number>> {
  const runtime = new VirtualRuntime(1);
  const task = () => runtime.defer(task);
  for (let count = 0; count < BARE_TASKS; count++) runtime.defer(task);
  const stretch = new Stretch();
  const over = () => runtime.steps >= BARE_STEPS;
  await runtime.runUntil(over, { what: 'all steps are done', maxSteps: BARE_STEPS });
  stretch.steps = BARE_STEPS;
  return stretch.figures('bare_scheduler');
}
