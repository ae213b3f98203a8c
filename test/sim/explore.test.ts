// The life of a buffer in every course that it can take, in small worlds; and that the search finds what is wrong.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChosenConnector } from '../../sim/explore/chosen-output.ts';
import { explore } from '../../sim/explore/explore.ts';
import type { Act } from '../../sim/explore/acts.ts';
import { stepwiseDomain } from '../../sim/explore/stepwise-domain.ts';
import type { Picture } from '../../src/display/output.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';
import type { Domain } from '../../src/xen/domain.ts';

const WHOLE: readonly Act[] = ['create', 'attach', 'show', 'flip', 'destroy'];
const AGAIN: readonly Act[] = [
  'create',
  'attach',
  'show',
  'destroy',
  'create',
  'destroy',
  'destroy',
];
const SHORT: readonly Act[] = ['create', 'destroy'];
const NOBODY = { guests: false, backend: false };
const EITHER = { guests: true, backend: true };

test('one buffer, one guest, and the death of either side at any moment', async (t) => {
  const found = await explore({ lives: [WHOLE], deaths: EITHER, statesMax: 5_000 });
  assert.equal(found.failure, undefined);
  assert(found.states > 200 && found.ends > 10, JSON.stringify(found));
  t.diagnostic(JSON.stringify(found));
});

test('a buffer is destroyed too early, made again under its name, and destroyed twice', async (t) => {
  const found = await explore({ lives: [AGAIN], deaths: NOBODY, statesMax: 5_000 });
  assert.equal(found.failure, undefined);
  t.diagnostic(JSON.stringify(found));
});

test('two guests, two buffers, one output: neither is in the way of the other', async (t) => {
  const found = await explore({ lives: [WHOLE, SHORT], deaths: NOBODY, statesMax: 5_000 });
  assert.equal(found.failure, undefined);
  assert(found.states > 200, JSON.stringify(found));
  t.diagnostic(JSON.stringify(found));
});

test('without taking any state for one that was seen before, the same states come', async () => {
  const world = { lives: [SHORT], deaths: EITHER, statesMax: 5_000 };
  const pruned = await explore(world);
  const whole = await explore({ ...world, everyCourse: true });
  assert.equal(whole.failure, undefined);
  assert.equal(whole.states, pruned.states);
  assert(whole.transitions > pruned.transitions, 'some states are reached in more ways than one');
});

/** Says that pages are unmapped before they are. */
function hasty(domain: Domain, runtime: Runtime): Domain {
  const stepwise = stepwiseDomain(domain, runtime);
  const { foreign } = stepwise;
  return {
    ...stepwise,
    foreign: {
      export: (request) => foreign.export(request),
      map: async (request) => {
        const mapping = await foreign.map(request);
        const unmap = mapping[Symbol.asyncDispose].bind(mapping);
        return Object.defineProperty(mapping, Symbol.asyncDispose, {
          configurable: true,
          value: async () => void unmap(),
        });
      },
    },
  };
}

/** Lets a picture go before it has stopped reading it. */
class CarelessConnector extends ChosenConnector {
  override async retire(picture: Picture): Promise<void> {
    void super.retire(picture);
  }
}

/** Completes every flip twice. */
class TwiceConnector extends ChosenConnector {
  override flip(picture: Picture, onFlipped: () => void): void {
    super.flip(picture, () => {
      onFlipped();
      onFlipped();
    });
  }
}

for (const [defect, changes, complaint] of [
  ['pages that are said to be unmapped before they are', { backendDomain: hasty }, /mapped/],
  [
    'an output that reads what it has let go',
    { connector: (info) => new CarelessConnector(info) },
    /reads a picture whose pages are not mapped/,
  ],
  [
    'an output that completes a flip twice',
    { connector: (info) => new TwiceConnector(info) },
    /completed a flip twice/,
  ],
] as const satisfies readonly (readonly [
  string,
  Partial<Parameters<typeof explore>[0]>,
  RegExp,
])[]) {
  test(`${defect}: the search finds the course`, async () => {
    const found = await explore({ lives: [WHOLE], deaths: NOBODY, statesMax: 5_000, ...changes });
    assert(found.failure !== undefined, 'nothing was found');
    assert.match(found.failure.broken.join('\n'), complaint);
    assert(found.failure.course.some((name) => name.startsWith('A asks: ')));
  });
}
