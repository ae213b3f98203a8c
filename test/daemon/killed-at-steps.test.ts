// The daemon is killed with SIGKILL after every single step of a life, and the next one takes up its guests.

import { test } from 'node:test';
import { DOWN_MS, deathAndRecovery, lifeOf, type WorldOptions } from './world.ts';

const WORLDS: readonly (readonly [what: string, options: WorldOptions])[] = [
  ['frontends of ours, with buffers of the daemon’s', { seed: 1, kinds: ['ours'], beAlloc: true }],
  [
    'Linux’s frontends, whose programs keep buffers of the daemon’s for a while',
    { seed: 1, kinds: ['linux'], beAlloc: true, clientsMs: 1500 },
  ],
];

for (const [what, options] of WORLDS) {
  test(`killed after any step, the daemon is followed by one that serves: ${what}`, async () => {
    const { steps } = await lifeOf(options);
    for (let step = 0; step <= steps; step++) {
      const downMs = DOWN_MS[step % DOWN_MS.length]!;
      await deathAndRecovery({ ...options, downMs }, (world) => world.steps(step)).catch(
        (cause: unknown) => {
          throw new Error(`killed after step ${step}`, { cause });
        },
      );
    }
  });
}
