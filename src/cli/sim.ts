// `xen-zcopy sim`: the seeded simulation of a whole host. The same seed and number of steps do the same, step by
// step; the report goes to stdout, what a violation comes down to, to stderr.

import type { RunReport, Shrunk } from '../../sim/index.ts';
import { wholeNumber } from './config.ts';

export interface SimCommandOptions {
  readonly seed?: string;
  readonly steps: string;
  readonly json?: boolean;
}

const MAX_SEED = 2 ** 48;
const MAX_STEPS = 10 ** 12;

/** Fails (exit code 1) when an invariant did not hold. @throws UsageError */
export async function sim({ seed, steps, json }: SimCommandOptions): Promise<void> {
  const options = {
    seed:
      seed === undefined
        ? await freshSeed()
        : wholeNumber(seed, { option: '--seed', min: 0, max: MAX_SEED }),
    steps: wholeNumber(steps, { option: '--steps', min: 1, max: MAX_STEPS }),
  };
  const { simulate, shrinkRun } = await import('../../sim/index.ts');
  const report = await simulate(options);
  process.stdout.write(json ? `${JSON.stringify(report)}\n` : describe(report));
  if (report.violations.length === 0) return;
  process.stderr.write(describeShrunk(report, await shrinkRun(report)));
  throw new Error(`seed ${report.seed} violates an invariant`);
}

async function freshSeed(): Promise<number> {
  const { SystemRandom } = await import('../runtime/random.ts');
  return new SystemRandom().u32();
}

function describe({
  seed,
  steps,
  stepsPerSecond,
  guests,
  faults,
  violations,
  digest,
}: RunReport): string {
  const injected = Object.entries(faults).map(([kind, count]) => `  ${kind} ${count}`);
  return [
    `seed ${seed}: ${steps} steps, ${stepsPerSecond} a second, ${guests} guests, digest ${digest}`,
    'faults:',
    ...injected,
    violations.length === 0 ? 'every invariant held' : `violated: ${violations[0]!.detail}`,
    '',
  ].join('\n');
}

function describeShrunk({ seed, steps }: RunReport, shrunk: Shrunk): string {
  const { violation, omitted, trace, attempts } = shrunk;
  return [
    `the shortest that fails, of ${attempts} tried: ${shrunk.steps} steps of its world`,
    `  ${violation.invariant}: ${violation.detail}`,
    `  without: ${omitted.join(' ') || 'nothing'}`,
    'the last events before it:',
    ...trace.map((line) => `  ${line}`),
    `again: xen-zcopy sim --seed ${seed} --steps ${steps}`,
    '',
  ].join('\n');
}
