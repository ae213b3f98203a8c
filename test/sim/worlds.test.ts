// The seeded world: a fixed set of seeds and fresh ones, each printed, so that a failure can be had again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FAULT_KINDS } from '../../sim/faults.ts';
import { simulate } from '../../sim/index.ts';
import { type RunReport, runSimulation } from '../../sim/run.ts';
import { shrink } from '../../sim/shrink.ts';
import { SystemRandom } from '../../src/runtime/random.ts';

const FIXED_SEEDS = 12;
const FRESH_SEEDS = 12;
const STEPS = 40_000;

async function held(seed: number): Promise<RunReport> {
  const report = await simulate({ seed, steps: STEPS });
  const [found] = report.violations;
  if (!found) return report;
  const { worldSeed, worldSteps } = found;
  const shrunk = await shrink({ seed: worldSeed, steps: worldSteps, violation: found });
  const about = `seed ${seed}: ${found.invariant}: ${found.detail} (world ${worldSeed}, ${worldSteps} steps)`;
  assert.fail(`${about}\nwithout ${shrunk.omitted.join(' ')}:\n${shrunk.trace.join('\n')}`);
}

test('every invariant holds in the worlds of a fixed set of seeds, and every kind of fault comes', async () => {
  const injected = new Set<string>();
  for (let seed = 1; seed <= FIXED_SEEDS; seed++) {
    const report = await held(seed);
    for (const kind of Object.keys(report.faults)) injected.add(kind);
  }
  assert.deepEqual(
    FAULT_KINDS.filter((kind) => !injected.has(kind)),
    [],
  );
});

test('every invariant holds in worlds of fresh seeds', async (t) => {
  const random = new SystemRandom();
  for (let count = 0; count < FRESH_SEEDS; count++) {
    const seed = random.u32();
    t.diagnostic(`seed ${seed}`);
    await held(seed);
  }
});

test('a seed does the same again, and two seeds do not', async () => {
  const digests = new Map<number, string>();
  for (let seed = 1; seed <= 6; seed++) {
    const first = await simulate({ seed, steps: 8_000 });
    const again = await simulate({ seed, steps: 8_000 });
    const { stepsPerSecond: _fast, ...report } = first;
    const { stepsPerSecond: _slow, ...repeated } = again;
    assert.deepEqual(repeated, report);
    digests.set(seed, report.digest);
  }
  assert.equal(new Set(digests.values()).size, digests.size);
});

test('a run is as long as it is told to be, whatever its worlds take', async () => {
  for (const steps of [1, 500, 20_000, 33_333]) {
    const report = await runSimulation({ seed: 3, steps });
    assert.equal(report.steps, steps);
    assert.deepEqual(report.violations, []);
  }
});
