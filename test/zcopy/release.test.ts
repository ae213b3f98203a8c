// Release as a fact: steps that fail, take their time, or never succeed, and the many who wait for them.

import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import fc from 'fast-check';
import { SysError } from '../../src/runtime/errors.ts';
import { type Runtime, sleep, systemRuntime } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { type Holder, Release, type ReleaseStep } from '../../src/zcopy/release.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';

const PEER: Holder = { who: 'domain 7', pages: 3, evidence: 'grant table' };

/** A step whose tries answer as listed, then succeed. */
class ScriptedStep implements ReleaseStep {
  readonly holder = PEER;
  readonly tries: number[] = [];
  readonly #runtime: VirtualRuntime;
  readonly #answers: ('held' | 'fails')[];

  constructor(runtime: VirtualRuntime, answers: ('held' | 'fails')[]) {
    this.#runtime = runtime;
    this.#answers = [...answers];
  }

  async attempt(): Promise<Holder | undefined> {
    this.tries.push(this.#runtime.nowMs());
    const answer = this.#answers.shift();
    if (answer === 'fails') {
      throw new SysError({ call: 'munmap', errnoName: 'ENOMEM', context: 'a test' });
    }
    return answer === 'held' ? PEER : undefined;
  }
}

function setUp(...scripts: ('held' | 'fails')[][]) {
  const runtime = new VirtualRuntime(1);
  const steps = scripts.map((script) => new ScriptedStep(runtime, script));
  const states: string[] = [];
  const onState = (state: string) => states.push(state);
  const release = new Release({ runtime, steps, onState });
  const run = <T>(promise: Promise<T>) => runUntilSettled(runtime, promise);
  return { runtime, steps, states, release, run };
}

const forEver = (count: number) => new Array<'held'>(count).fill('held');

test('steps are taken in their order, each until it succeeds', async () => {
  const { release, steps, run, states } = setUp(['held', 'fails'], [], ['held']);
  assert.deepEqual(await run(release.release()), { state: 'released' });
  assert.deepEqual(
    steps.map(({ tries }) => tries.length),
    [3, 1, 2],
  );
  const last = (index: number) => steps[index]!.tries.at(-1)!;
  assert(last(0) <= steps[1]!.tries[0]! && last(1) <= steps[2]!.tries[0]!);
  assert.deepEqual(states, ['releasing', 'released']);
  assert.deepEqual(release.holders, []);
});

test('a wait that times out quarantines, says who holds it, and later succeeds', async () => {
  const { release, run, states, runtime } = setUp(forEver(20));
  const late = await run(release.release({ timeoutMs: 100 }));
  assert.deepEqual(late, { state: 'quarantined', holders: [PEER] });
  assert.equal(runtime.nowMs(), 100);
  assert.equal(release.state, 'quarantined');
  assert.deepEqual(await run(release.release()), { state: 'released' });
  assert.deepEqual(states, ['releasing', 'quarantined', 'released']);
});

test('a failure of the system is a try that did not succeed, told in its own words', async () => {
  const { release, run } = setUp(new Array(20).fill('fails'));
  const late = await run(release.release({ timeoutMs: 50 }));
  assert(late.state === 'quarantined');
  assert.match(late.holders[0]!.evidence, /munmap failed with ENOMEM/);
  await run(release.released);
});

test('aborting a wait ends the wait and not the release', async () => {
  const { release, run } = setUp(forEver(5));
  const abort = new AbortController();
  const waiting = release.release({ signal: abort.signal });
  abort.abort(new Error('enough'));
  await assert.rejects(run(waiting), /enough/);
  assert.equal(release.state, 'releasing');
  await assert.rejects(release.release({ signal: abort.signal }), /enough/);
  await run(release.released);
  assert.equal(release.state, 'released');
});

test('a signal is listened to while it is waited for, and not until the end of the release', async () => {
  const { release, run } = setUp(forEver(20));
  const { signal } = new AbortController();
  for (let wait = 0; wait < 20; wait++) await run(release.release({ timeoutMs: 1, signal }));
  assert.deepEqual(getEventListeners(signal, 'abort'), []);
  await run(release.release({ signal }));
  assert.deepEqual(getEventListeners(signal, 'abort'), []);
});

test('a wait that is longer than timers go is a wait without a bound, and no wait at all', async () => {
  const runtime = systemRuntime();
  const answers = [PEER, PEER];
  const step = { holder: PEER, attempt: async () => answers.shift() };
  const release = new Release({
    runtime,
    steps: [step, { ...step, attempt: () => later(runtime) }],
  });
  const waits = [2 ** 32 - 1, Number.POSITIVE_INFINITY].map((timeoutMs) =>
    release.release({ timeoutMs }),
  );
  assert.deepEqual(await Promise.all(waits), [{ state: 'released' }, { state: 'released' }]);
});

/** Done after a time in which a timer that goes off at once has done so. */
async function later(runtime: Runtime): Promise<undefined> {
  await sleep(runtime, 30);
  return undefined;
}

test('a wait aborted before anything began leaves everything live', async () => {
  const { release, steps } = setUp([]);
  await assert.rejects(release.release({ signal: AbortSignal.abort(new Error('no')) }), /no/);
  assert.deepEqual([release.state, steps[0]!.tries], ['live', []]);
});

test('releasing twice, and waiting after it is released, is one release (G3)', async () => {
  const { release, steps, run } = setUp(['held']);
  const both = Promise.all([release.release(), release.release({ timeoutMs: 60_000 })]);
  assert.deepEqual(await run(both), [{ state: 'released' }, { state: 'released' }]);
  assert.deepEqual(await run(release.release({ timeoutMs: 0 })), { state: 'released' });
  assert.equal(steps[0]!.tries.length, 2);
});

test('tries slow down to two a second, and hurrying makes one at once', async () => {
  const { release, steps, run, runtime } = setUp(forEver(40));
  await run(release.release({ timeoutMs: 10_000 }));
  const { tries } = steps[0]!;
  const pauses = tries.slice(1).map((atMs, index) => atMs - tries[index]!);
  assert.equal(Math.max(...pauses), 500);
  assert(tries.length < 32, `${tries.length} tries in 10 s`);
  const before = tries.length;
  release.hurry();
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  assert.equal(tries.length, before + 1);
  assert.equal(tries.at(-1), runtime.nowMs());
  await run(release.released);
});

test('whoever waits how long, everyone agrees in the end, and no step is tried after it succeeded', async () => {
  const script = fc.array(fc.constantFrom<'held' | 'fails'>('held', 'fails'), { maxLength: 8 });
  const scripts = fc.array(script, { minLength: 1, maxLength: 4 });
  const waits = fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 1, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(scripts, waits, async (listed, timeouts) => {
      const { release, steps, run } = setUp(...listed);
      const waiting = timeouts.map((timeoutMs) => release.release({ timeoutMs }));
      const outcomes = await run(Promise.all(waiting));
      for (const outcome of outcomes) {
        if (outcome.state === 'quarantined') assert.equal(outcome.holders.length <= 1, true);
      }
      await run(release.released);
      const wanted = listed.map((answers) => answers.length + 1);
      assert.deepEqual(
        steps.map(({ tries }) => tries.length),
        wanted,
      );
    }),
    { numRuns: 100 },
  );
});
