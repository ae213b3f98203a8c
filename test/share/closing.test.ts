// An importer that is closed in the middle of something, or by a kernel that does not unmap at once: it is closed when
// nothing of the exporter is mapped any more, and not before.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RawExporter } from '../../sim/guests/raw-ends.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { Importer } from '../../src/share/importer.ts';
import { DEFAULT_RULE } from '../../src/share/policy.ts';
import type { Domain } from '../../src/xen/domain.ts';
import { shareError, sharing } from './world.ts';

/** More steps than an opening takes. */
const OPENING_STEPS_MAX = 400;

/** `domain`, whose kernel refuses each unmapping once. */
function refusingUnmaps(domain: Domain): Domain {
  const { domid, provider, grants, memory, events, store, foreign } = domain;
  const map: Domain['foreign']['map'] = async (request) => {
    const mapping = await foreign.map(request);
    const unmap = mapping[Symbol.asyncDispose].bind(mapping);
    let refused = false;
    const value = async () => {
      if (refused) return unmap();
      refused = true;
      throw new SysError({ call: 'munmap', errnoName: 'EBUSY', context: 'a test' });
    };
    return Object.defineProperty(mapping, Symbol.asyncDispose, { value });
  };
  return {
    domid,
    provider,
    grants,
    memory,
    events,
    store,
    foreign: { map, export: (request) => foreign.export(request) },
    [Symbol.asyncDispose]: async () => {},
  };
}

test('an importer that is closed while an exporter lets it wait gives the opening up (seed 8)', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const raw = await RawExporter.open(world, { from: alice, to: bob.domain.domid });
    raw.onEvent = () => {};
    const importer = await world.importer(bob, alice);
    const [offered] = await world.next(importer);
    const opening = importer.open(offered!.share.id);
    const refused = assert.rejects(opening, shareError('closed'));
    await world.until(() => raw.events > 0, 'somebody asks to be let in');
    const before = world.runtime.nowMs();
    await run(importer.close());
    await run(refused);
    assert(world.runtime.nowMs() - before < 100, 'the exporter is not waited for');
    assert.equal(world.mapped(bob), 0);
  }));

test('an importer can be closed at every step of an opening (seed 8)', () =>
  sharing(async (world) => {
    const { alice, bob, run, runtime } = world;
    const to = bob.domain.domid;
    const share = await run(world.exporter(alice).share({ to, memory: { byteLength: 9000 } }));
    let opened = 0;
    for (let steps = 0; opened === 0; steps++) {
      assert(steps < OPENING_STEPS_MAX, 'the opening never ends');
      const importer = await world.importer(bob, alice);
      const until = runtime.steps + steps;
      const opening = importer.open(share.id).then(
        () => {
          if (runtime.steps < until) opened += 1;
        },
        (error: unknown) => shareError('closed')(error),
      );
      await runtime.runUntil(() => opened > 0 || runtime.steps >= until, { what: 'the steps' });
      await run(importer.close());
      await run(opening);
      assert.equal(world.mapped(bob), 0);
    }
  }));

test('what the kernel does not unmap at once is unmapped a little later (seed 11)', () =>
  sharing(async (world) => {
    const { alice, bob, run, runtime } = world;
    const to = bob.domain.domid;
    const share = await run(world.exporter(alice).share({ to, memory: { byteLength: 9000 } }));
    const domain = refusingUnmaps(bob.domain);
    const policy = { accept: [{ ...DEFAULT_RULE, from: alice.domain.domid }] };
    const importer = await run(Importer.open({ runtime, domain, policy }));
    assert.equal(world.mapped(bob), 0, 'the offer was looked at, and is not mapped any more');
    await run((await run(importer.open(share.id))).close());
    await run(importer.close());
    assert.equal(world.mapped(bob), 0);
  }));
