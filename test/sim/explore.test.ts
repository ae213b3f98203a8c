// Every way that the life of a display buffer can go: all of them for one guest and either kind of memory, and the
// shortest ones, up to a number of states, for two guests with one buffer each.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { explore } from '../../sim/explore/explore.ts';
import type { BufferKind } from '../../sim/explore/life-cycle.ts';

/** States of two guests that are entered here; `npm run sim:long -- --explore` enters them all. */
const PAIR_STATES_MAX = 2_000;

for (const kind of ['own', 'lent'] as const satisfies readonly BufferKind[]) {
  test(`nothing breaks in any state of one guest whose buffer is ${kind}, and no state is left out`, async (t) => {
    const { states, transitions, ends, longest, complete, broken } = await explore({
      guests: [kind],
      maxStates: 100_000,
    });
    t.diagnostic(`${states} states, ${transitions} choices, ${ends} ends, ${longest} steps deep`);
    assert.equal(broken, undefined);
    assert(complete);
    assert(states > 400, 'the exploration has lost most of its choices');
    assert(ends > 0);
  });
}

test('nothing breaks in the states of two guests that are nearest to the start', async () => {
  const { states, broken } = await explore({ guests: ['own', 'lent'], maxStates: PAIR_STATES_MAX });
  assert.equal(broken, undefined);
  assert.equal(states, PAIR_STATES_MAX);
});

test('a way that breaks something is found, and it is a shortest one', async () => {
  const broken = await explore({
    guests: ['lent'],
    maxStates: 100_000,
    // As if a loan were called over while the guest still maps its pages.
    defect: (domain) => {
      domain.trustsTheGuest = true;
    },
  });
  assert.match(broken.broken!.what, /still in use|maps the memory|while a guest maps it/);
  assert(broken.broken!.way.length < 12, broken.broken!.way.join(', '));
});
