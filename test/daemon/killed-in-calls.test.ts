// The daemon is killed with SIGKILL in every single call that it makes of the hypervisor and of xenstored, and again
// and again; the next one takes up its guests.

import { test } from 'node:test';
import fc from 'fast-check';
import { DOWN_MS, deathAndRecovery, lifeOf, manyDeaths, type WorldOptions } from './world.ts';

const WORLDS: readonly (readonly [what: string, options: WorldOptions])[] = [
  ['frontends of ours', { seed: 2, kinds: ['ours'], beAlloc: false }],
  ['Linux’s frontends', { seed: 2, kinds: ['linux'], beAlloc: false }],
];

for (const [what, options] of WORLDS) {
  test(`killed in any call, the daemon is followed by one that serves: ${what}`, async () => {
    const { steps, calls } = await lifeOf(options);
    for (let call = 1; call <= calls; call++) {
      const downMs = DOWN_MS[call % DOWN_MS.length]!;
      await deathAndRecovery({ ...options, downMs }, (world, program) => {
        program.killAtCall(call);
        return world.steps(steps);
      }).catch((cause: unknown) => {
        throw new Error(`killed in call ${call}`, { cause });
      });
    }
  });
}

test('property: however often the daemon is killed, under two guests at once, the last one serves', async () => {
  const life = fc.record({
    steps: fc.integer({ min: 0, max: 1500 }),
    downMs: fc.constantFrom(...DOWN_MS),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 2 ** 31 }),
      fc.boolean(),
      fc.array(life, { minLength: 1, maxLength: 6 }),
      (seed, beAlloc, lives) =>
        manyDeaths({ seed, kinds: ['ours', 'linux'], beAlloc, clientsMs: 500 }, lives),
    ),
    { numRuns: 20 },
  );
});
