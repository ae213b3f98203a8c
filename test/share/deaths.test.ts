// Either end dies, its program or its whole domain, at every step: the other end is told, gets everything back, and
// can go on with somebody else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RawExporter } from '../../sim/guests/raw-ends.ts';
import type { ExportedShare } from '../../src/share/exported-share.ts';
import type { ImportedShare } from '../../src/share/imported-share.ts';
import type { Importer } from '../../src/share/importer.ts';
import { type ShareWorld, shareError, sharing } from './world.ts';

const STEPS = ['offered', 'open', 'frame ready', 'frame held', 'withdrawing'] as const;
type Step = (typeof STEPS)[number];
const WAYS = ['kill', 'destroy'] as const;

interface Scene {
  readonly importer: Importer;
  readonly share: ExportedShare;
  readonly open: ImportedShare | undefined;
}

/** A stream of alice's for bob, at one of the steps of its life. */
async function sceneAt(world: ShareWorld, step: Step): Promise<Scene> {
  const { alice, bob, run } = world;
  const importer = await world.importer(bob, alice);
  const exporter = world.exporter(alice);
  const to = bob.domain.domid;
  const share = await run(exporter.stream({ to, memory: { byteLength: 5000 }, slots: 2 }));
  await world.next(importer);
  if (step === 'offered') return { importer, share, open: undefined };
  const open = await run(importer.open(share.id));
  if (step === 'open') return { importer, share, open };
  const frame = await run(share.producer.acquire());
  frame.bytes.fill(3);
  frame.publish();
  if (step !== 'frame ready') await run(open.frames.acquire());
  if (step === 'withdrawing') {
    void share.withdraw({ deadlineMs: 60_000 });
    await run(open.over);
  }
  return { importer, share, open };
}

for (const step of STEPS) {
  for (const way of WAYS) {
    test(`the exporter's end (${way}) with the share ${step}`, () =>
      sharing(async (world) => {
        const { alice, carol, run } = world;
        const { importer, share, open } = await sceneAt(world, step);
        await world[way](alice);
        if (open !== undefined) {
          const end = await run(open.over);
          assert.equal(end, step === 'withdrawing' ? 'withdrawn' : 'exporter-gone');
          await run(open.close());
        }
        // Of a program that died while nobody had the share open, xenstore says nothing.
        const told = step !== 'offered' || way === 'destroy';
        if (told) {
          await world.until(() => importer.offers.length === 0, 'the offer is gone');
          await assert.rejects(run(importer.open(share.id)), shareError('unknown-id'));
        } else {
          await assert.rejects(run(importer.open(share.id)), shareError('exporter-gone'));
          assert.deepEqual(importer.offers, []);
        }
        assert.equal(world.mapped(world.bob), 0);
        const [event] = await world.next(importer);
        assert.equal(event!.type, step === 'withdrawing' ? 'withdrawn' : 'gone');
        const ofCarol = await world.importer(world.bob, carol);
        const next = await run(
          world.exporter(carol).share({ to: world.bob.domain.domid, memory: { byteLength: 1 } }),
        );
        await world.next(ofCarol);
        await run((await run(ofCarol.open(next.id))).close());
      }));

    test(`the importer's end (${way}) with the share ${step}`, () =>
      sharing(async (world) => {
        const { alice, bob, carol, run } = world;
        const { share } = await sceneAt(world, step);
        await world[way](bob);
        await world.until(
          () => share.state === 'offered' || share.state === 'released',
          `the exporter hears of it: ${share.state}`,
        );
        if (step !== 'withdrawing') {
          const frame = share.producer.tryAcquire();
          assert(frame !== undefined, 'its slots are its own again');
          frame.discard();
        }
        assert.deepEqual(await run(share.withdraw()), { state: 'released' });
        assert.equal(world.granted(alice), 0);
        const ofCarol = await world.importer(carol, alice);
        const next = await run(
          world.exporter(alice).share({ to: carol.domain.domid, memory: { byteLength: 1 } }),
        );
        await world.next(ofCarol);
        await run((await run(ofCarol.open(next.id))).close());
      }));
  }
}

test('what a program left in xenstore when it died is no offer, and its answers are swept', () =>
  sharing(async (world) => {
    const { alice, bob, host, run } = world;
    const first = await world.importer(bob, alice);
    const share = await run(
      world.exporter(alice).share({ to: bob.domain.domid, memory: { byteLength: 1 } }),
    );
    await world.next(first);
    await run(first.open(share.id));
    await world.kill(alice);
    await world.pause(10);
    const offers = `/local/domain/${alice.domain.domid}/data/xen-zcopy/offers/${bob.domain.domid}`;
    assert.deepEqual(await run(host.dom0.store.directory(offers)), [share.id], 'it is left there');
    await run(first.close());
    const second = await world.importer(bob, alice);
    assert.deepEqual(second.offers, []);
    assert.deepEqual(second.refused.get(alice.domain.domid), {}, 'and no lie either');
  }));

test('what a dead program of the same domain offered is removed by the next one', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const { Exporter } = await import('../../src/share/exporter.ts');
    const { runtime } = world;
    const alive = new Set(['first', 'second', 'third']);
    const program = (own: string) => ({ own, isAlive: (name: string) => alive.has(name) });
    const request = { to: bob.domain.domid, memory: { byteLength: 1 } };
    const exporters = ['first', 'second', 'third'].map(
      (own) => new Exporter({ runtime, domain: alice.domain, program: program(own) }),
    );
    const shares = [];
    for (const exporter of exporters.slice(0, 2)) shares.push(await run(exporter.share(request)));
    alive.delete('first');
    shares.push(await run(exporters[2]!.share(request)));
    const path = `/local/domain/${alice.domain.domid}/data/xen-zcopy/offers/${bob.domain.domid}`;
    const names = (await run(alice.domain.store.directory(path)))!;
    assert.deepEqual(names.sort(), [shares[1]!.id, shares[2]!.id].sort());
    for (const exporter of exporters) await run(exporter.close());
  }));

test('an offer whose pages are something else by now is gone, and no lie (seed 3971573467)', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const raw = await RawExporter.open(world, { from: alice, to: bob.domain.domid });
    const importer = await world.importer(bob, alice);
    const [offered] = await world.next(importer);
    raw.offer.bytes.fill(0);
    await assert.rejects(run(importer.open(offered!.share.id)), shareError('exporter-gone'));
    assert.deepEqual(importer.refused.get(alice.domain.domid), {});
    assert.deepEqual(importer.offers, []);
  }));
