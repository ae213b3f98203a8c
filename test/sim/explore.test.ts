// The life of a buffer in every course that it can take, in small worlds; and that the search finds what is wrong.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Act } from '../../sim/explore/acts.ts';
import { ChosenConnector } from '../../sim/explore/chosen-output.ts';
import { explore } from '../../sim/explore/explore.ts';
import type { WorldOptions } from '../../sim/explore/explored-world.ts';
import { stepwiseDomain } from '../../sim/explore/stepwise-domain.ts';
import type { Picture } from '../../src/display/output.ts';
import { WORDS_PER_GRANT, wordsOf } from '../../src/hypervisor/grant-table.ts';
import type { HypercallPort } from '../../src/hypervisor/hypercalls.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';
import type { Domain, LentPages } from '../../src/xen/domain.ts';
import type { Memory } from '../../src/xen/memory.ts';

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
const LENT: readonly Act[] = ['borrow', 'destroy'];
const NOBODY = { guests: false, backend: false };
const BACKEND = { guests: false, backend: true };
const EITHER = { guests: true, backend: true };

for (const [title, least, world] of [
  [
    'one buffer, one guest, and the death of either side at any moment',
    { states: 200, ends: 11 },
    { lives: [WHOLE], deaths: EITHER },
  ],
  [
    'a buffer is destroyed too early, made again under its name, and destroyed twice',
    { states: 200, ends: 2 },
    { lives: [AGAIN], deaths: NOBODY },
  ],
  [
    'a lent buffer, mapped at any moment, unmapped late or never, and an end of either side or of the display',
    { states: 300, ends: 5 },
    { lives: [['borrow']], deaths: { ...EITHER, displays: true } },
  ],
  [
    'a guest with a lent buffer and one with its own: neither is in the way of the other',
    { states: 250, ends: 1 },
    { lives: [['borrow'], ['create']], deaths: NOBODY },
  ],
  [
    'a guest at its budget gets another buffer once the first, which it may still map, is really back',
    { states: 300, ends: 2 },
    { lives: [[...LENT, 'create another']], deaths: NOBODY, buffersMax: 1 },
  ],
] as const) {
  test(title, async (t) => {
    const found = await explore({ ...world, statesMax: 5_000 });
    t.diagnostic(JSON.stringify(found));
    assert.equal(found.failure, undefined);
    assert(found.states >= least.states && found.ends >= least.ends, 'the world is too small');
  });
}

for (const [memory, world] of [
  ['own', { lives: [SHORT], deaths: EITHER }],
  ['lent', { lives: [['borrow']], deaths: BACKEND }],
] as const) {
  test(`without taking any state for one that was seen before, the same states come (${memory} pages)`, async (t) => {
    const pruned = await explore({ ...world, statesMax: 5_000 });
    const whole = await explore({ ...world, statesMax: 5_000, everyCourse: true });
    t.diagnostic(JSON.stringify(whole));
    assert.equal(whole.failure, undefined);
    assert.equal(whole.states, pruned.states);
    assert(whole.transitions > pruned.transitions, 'some states are reached in more ways than one');
  });
}

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

/**
 * A backend that complains, and leaves no trace of it in any state, when it maps something after a flip was complete.
 * Where it mapped first and the flip was complete then, the same state comes of it.
 */
function complainsOnTheWay(): Pick<WorldOptions, 'backendDomain' | 'connector'> {
  let flipped = false;
  return {
    backendDomain: (domain, runtime) => {
      flipped = false;
      const map: Domain['foreign']['map'] = (request) => {
        if (flipped) runtime.log.error({ err: new Error('mapped after a flip') });
        return domain.foreign.map(request);
      };
      const foreign = { map, export: domain.foreign.export.bind(domain.foreign) };
      return stepwiseDomain({ ...partsOf(domain), foreign }, runtime);
    },
    connector: (info) =>
      new (class extends ChosenConnector {
        override flip(picture: Picture, onFlipped: () => void): void {
          super.flip(picture, () => {
            flipped = true;
            onFlipped();
          });
        }
      })(info),
  };
}

/** A domain that lends with `change` made to each loan. */
function lending(change: (lent: LentPages, port: HypercallPort) => void) {
  return (domain: Domain, runtime: Runtime, port: HypercallPort): Domain => {
    const lend: Domain['grants']['lend'] = async (request) => {
      const lent = await domain.grants.lend(request);
      change(lent, port);
      return lent;
    };
    const grants = { share: domain.grants.share.bind(domain.grants), lend };
    return stepwiseDomain({ ...partsOf(domain), grants }, runtime);
  };
}

/** Says that the guest has let go once it is asked to. */
const believing = lending((lent) => {
  lent.end = async () => ({ heldPages: 0, evidence: 'hope' });
});

/** Ends grants without a look at whether the guest maps them (XSA-396), so that the frames go back to the pool. */
const ruthless = lending((lent, port) => {
  const end = lent.end.bind(lent);
  lent.end = () => {
    for (const ref of lent.refs) wordsOf(port.grantTable)[ref * WORDS_PER_GRANT] = 0;
    return end();
  };
});

/** Has pools whose memory was used before. */
function untidy(domain: Domain, runtime: Runtime): Domain {
  const { memory } = domain;
  const createPool: Memory['createPool'] = async (request) => {
    const pool = await memory.createPool(request);
    const allocate = pool.allocate.bind(pool);
    pool.allocate = async (pages) => {
      const buffer = await allocate(pages);
      buffer.bytes.fill(1);
      return buffer;
    };
    return pool;
  };
  const used = {
    allocate: memory.allocate.bind(memory),
    adopt: memory.adopt.bind(memory),
    createPool,
  };
  return stepwiseDomain({ ...partsOf(domain), memory: used }, runtime);
}

/** What a domain has, to be put together anew. */
function partsOf(domain: Domain): Domain {
  const { domid, provider, grants, foreign, memory, events, store } = domain;
  const dispose = domain[Symbol.asyncDispose].bind(domain);
  return {
    domid,
    provider,
    grants,
    foreign,
    memory,
    events,
    store,
    [Symbol.asyncDispose]: dispose,
  };
}

for (const [defect, life, changes, complaint] of [
  ['pages that are said to be unmapped before they are', WHOLE, { backendDomain: hasty }, /mapped/],
  [
    'an output that reads what it has let go',
    WHOLE,
    { connector: (info) => new CarelessConnector(info) },
    /reads a picture whose pages are not mapped/,
  ],
  [
    'an output that completes a flip twice',
    WHOLE,
    { connector: (info) => new TwiceConnector(info) },
    /completed a flip twice/,
  ],
  [
    'a complaint on the way to a state that was seen before',
    ['create', 'attach', 'show', 'flip', 'create another'],
    complainsOnTheWay(),
    /mapped after a flip/,
  ],
  [
    'a lender that believes that the guest has let go',
    LENT,
    { backendDomain: believing },
    /are in the row/,
  ],
  [
    'a lender that frees what the guest still maps',
    LENT,
    { backendDomain: ruthless },
    /which A maps, is not granted to it any more/,
  ],
  [
    'a lender whose memory was used before and not zeroed',
    ['borrow'],
    { backendDomain: untidy },
    /borrowed memory is not zero/,
  ],
] as const satisfies readonly (readonly [
  string,
  readonly Act[],
  Partial<WorldOptions>,
  RegExp,
])[]) {
  test(`${defect}: the search finds the course`, async () => {
    const found = await explore({ lives: [life], deaths: NOBODY, statesMax: 5_000, ...changes });
    assert(found.failure !== undefined, 'nothing was found');
    assert.match(found.failure.broken.join('\n'), complaint);
    assert(found.failure.course.some((name) => name.startsWith('A asks: ')));
  });
}
