// Importers that lie, and importers that nobody invited: they cost themselves their session, are counted, and the
// exporter's other shares go on.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RawImporter } from '../../sim/guests/raw-ends.ts';
import { GrantMapError } from '../../src/xen/domain.ts';
import { type ShareWorld, shareError, sharing } from './world.ts';

async function offered(world: ShareWorld) {
  const { alice, bob, run } = world;
  const exporter = world.exporter(alice);
  const to = bob.domain.domid;
  const share = await run(exporter.stream({ to, memory: { byteLength: 64 }, slots: 2 }));
  const ends = { of: bob, exporter: alice.domain.domid, id: share.id };
  return { exporter, share, ends };
}

test('an importer of another version is refused and counted', () =>
  sharing(async (world) => {
    const { share, exporter, ends } = await offered(world);
    const importer = await RawImporter.open(world, ends);
    importer.attach({ version: 9 });
    await world.until(() => importer.answer.session === 77, 'it is answered');
    assert.equal(importer.answer.attached, 2);
    assert.deepEqual(share.refused, { 'unsupported-version': 1 });
    assert.deepEqual(exporter.refused, { 'unsupported-version': 1 });
    assert.equal(share.state, 'offered');
    await importer.leave(world);
    assert.deepEqual(await world.run(share.withdraw()), { state: 'released' });
  }));

test('garbage in the states of slots costs the importer its session', () =>
  sharing(async (world) => {
    const { share, ends } = await offered(world);
    const importer = await RawImporter.open(world, ends);
    importer.attach();
    await world.until(() => share.state === 'open', 'it is accepted');
    const fence = (await world.run(share.producer.acquire())).publish();
    importer.state(0, 0xdead);
    assert.equal(await world.run(fence.done), 'consumer-gone');
    assert.equal(importer.answer.attached, 2, 'turned out');
    assert.deepEqual(share.refused, { 'malformed-slot-state': 1 });
    await importer.leave(world);
    const next = await RawImporter.open(world, ends);
    next.attach({ session: 78 });
    await world.until(() => next.answer.session === 78, 'another session is answered');
    assert.equal(next.answer.attached, 1);
    await next.leave(world);
  }));

test('an honest importer whose session another program spoils hears that it is turned out', () =>
  sharing(async (world) => {
    const { share } = await offered(world);
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const open = await run(importer.open(share.id));
    const fence = (await run(share.producer.acquire())).publish();
    // Any program of the domain can map the page: the grant is for the domain.
    const { controlRef } = importer.offered(share.id).offer;
    const map = { domid: alice.domain.domid, refs: [controlRef], writable: true };
    await using page = await run(bob.domain.foreign.map(map));
    page.bytes[64] = 99;
    share.producer.collect();
    assert.equal(await run(fence.done), 'consumer-gone');
    assert.equal(await run(open.over), 'turned-out');
    await assert.rejects(run(open.frames.acquire()), shareError('exporter-gone', /turned us out/));
    await run(open.close());
  }));

test('slots given back that were never taken, or set ready by the importer, confuse nobody', () =>
  sharing(async (world) => {
    const { share, ends } = await offered(world);
    const importer = await RawImporter.open(world, ends);
    importer.attach();
    await world.until(() => share.state === 'open', 'it is accepted');
    importer.state(0, 1);
    importer.state(1, 2);
    const frames = [share.producer.tryAcquire(), share.producer.tryAcquire()];
    assert.deepEqual(
      frames.map((frame) => frame?.slot),
      [0, 1],
    );
    const fences = frames.map((frame) => frame!.publish());
    importer.state(0, 0);
    assert.equal(await world.run(fences[0]!.done), 'consumed');
    assert.equal(fences[1]!.fate, undefined);
    await importer.leave(world);
    assert.equal(await world.run(fences[1]!.done), 'consumer-gone');
  }));

test('a storm of events slows itself down and nobody else', () =>
  sharing(async (world) => {
    const { share, ends, exporter } = await offered(world);
    const { carol, run } = world;
    const other = await run(exporter.share({ to: carol.domain.domid, memory: { byteLength: 1 } }));
    const ofCarol = await world.importer(carol, world.alice);
    const importer = await RawImporter.open(world, ends);
    importer.attach();
    for (let i = 0; i < 5000; i++) {
      importer.channel.notify();
      if (i % 100 === 0) await world.pause(0);
    }
    const open = await run(ofCarol.open(other.id));
    assert.equal(open.bytes.length, 1);
    await world.until(() => share.state === 'open', 'and it is served, too');
    await importer.leave(world);
  }));

test('who keeps what is withdrawn is in quarantine, and its end is told when it lets go', () =>
  sharing(async (world) => {
    const { share, ends } = await offered(world);
    const { alice, bob, run } = world;
    const importer = await RawImporter.open(world, ends);
    importer.attach();
    await world.until(() => share.state === 'open', 'it is accepted');
    const outcome = await run(share.withdraw({ deadlineMs: 100 }));
    assert.equal(outcome.state, 'quarantined');
    assert.deepEqual(share.holders, [
      { who: `domain ${bob.domain.domid}`, pages: 2, evidence: 'it has not closed the share' },
    ]);
    assert(world.granted(alice) > 0);
    let released = false;
    void share.released.then(() => {
      released = true;
    });
    await world.pause(5_000);
    assert.equal(released, false);
    await importer.leave(world);
    await world.until(() => released, 'it is given back');
    assert.equal(world.granted(alice), 0);
  }));

test('who says farewell and keeps the data mapped is found out by the grant table', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const exporter = world.exporter(alice);
    const to = bob.domain.domid;
    const buffer = await run(alice.domain.memory.allocate({ pages: 2, contiguity: 'none' }));
    const share = await run(exporter.share({ to, memory: { buffers: [buffer] } }));
    const importer = await RawImporter.open(world, {
      of: bob,
      exporter: alice.domain.domid,
      id: share.id,
    });
    importer.attach();
    await world.until(() => share.state === 'open', 'it is accepted');
    const refs = Array.from({ length: 64 }, (_, ref) => ref + 8);
    const kept = [];
    for (const ref of refs) {
      try {
        const request = { domid: alice.domain.domid, refs: [ref as never], writable: false };
        kept.push(await run(bob.domain.foreign.map(request)));
      } catch (error) {
        assert(error instanceof GrantMapError);
      }
    }
    await importer.leave(world);
    const outcome = await run(share.withdraw({ deadlineMs: 50 }));
    assert.equal(outcome.state, 'quarantined');
    assert.equal(share.holders[0]!.evidence, 'grant table');
    for (const mapping of kept) await run(Promise.resolve(mapping[Symbol.asyncDispose]()));
    await run(share.released);
    assert.deepEqual(await run(buffer.free()), { heldPages: 0, evidence: 'grant table' });
  }));

test('a second importer in the same domain is refused, told, and counted by the exporter', () =>
  sharing(async (world) => {
    const { share } = await offered(world);
    const { run } = world;
    const first = await world.importer(world.bob, world.alice);
    const second = await run(importerBeside(world));
    const open = await run(first.open(share.id));
    await assert.rejects(run(first.open(share.id)), shareError('in-use', /in this program/));
    await assert.rejects(run(second.open(share.id)), shareError('in-use', /another program/));
    assert.deepEqual(share.refused, { 'second-importer': 1 });
    await run(open.close());
    const later = await run(second.open(share.id));
    await run(later.close());
    await run(second.close());
  }));

async function importerBeside(world: ShareWorld) {
  const { Importer } = await import('../../src/share/importer.ts');
  const { DEFAULT_RULE } = await import('../../src/share/policy.ts');
  const from = world.alice.domain.domid;
  const policy = { accept: [{ ...DEFAULT_RULE, from }] };
  return Importer.open({ runtime: world.runtime, domain: world.bob.domain, policy });
}

test('a third domain sees nothing of a share, and can open nothing of it', () =>
  sharing(async (world) => {
    const { share, ends } = await offered(world);
    const { alice, bob, carol, run } = world;
    const importer = await world.importer(carol, alice);
    assert.deepEqual(importer.offers, []);
    await assert.rejects(run(importer.open(share.id)), shareError('unknown-id'));
    const path = `/local/domain/${alice.domain.domid}/data/xen-zcopy/offers/${bob.domain.domid}`;
    await assert.rejects(run(carol.domain.store.read(`${path}/${ends.id}`)), /EACCES/);
    await assert.rejects(run(carol.domain.store.directory(path)), /EACCES/);
    const value = (await run(bob.domain.store.read(`${path}/${ends.id}`)))!;
    const [ref] = /offer-refs=(\d+)/.exec(value)!.slice(1).map(Number);
    const port = Number(/event-channel=(\d+)/.exec(value)![1]);
    const map = { domid: alice.domain.domid, refs: [ref as never], writable: false };
    await assert.rejects(run(carol.domain.foreign.map(map)), GrantMapError);
    const bind = { remote: alice.domain.domid, remotePort: port as never, handler: () => {} };
    await assert.rejects(run(carol.domain.events.bindInterdomain(bind)), /EINVAL/);
  }));

test('ids that are garbage, unknown, or were withdrawn are typed errors', () =>
  sharing(async (world) => {
    const { share } = await offered(world);
    const { run } = world;
    const importer = await world.importer(world.bob, world.alice);
    for (const id of ['', 'x', '0'.repeat(32), '../../1'] as never[]) {
      await assert.rejects(run(importer.open(id)), shareError('unknown-id'));
    }
    const open = await run(importer.open(share.id));
    const withdrawn = share.withdraw({ deadlineMs: 500 });
    await run(open.over);
    await assert.rejects(run(importer.open(share.id)), shareError('withdrawn'));
    await run(open.close());
    await run(withdrawn);
    assert.throws(() => share.producer.tryAcquire(), shareError('withdrawn'));
    await assert.rejects(run(share.update(share.metadata)), shareError('withdrawn'));
  }));

test('too much metadata is refused before anything is made', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const exporter = world.exporter(alice);
    const request = { to: bob.domain.domid, memory: { byteLength: 1 } };
    for (const metadata of [{ userBytes: new Uint8Array(3969) }, { name: 'ä'.repeat(41) }]) {
      const shared = run(exporter.share({ ...request, metadata }));
      await assert.rejects(shared, shareError('oversized-metadata'));
    }
    assert.equal(world.granted(alice), 0);
    const most = { userBytes: new Uint8Array(3968).fill(9), name: 'ä'.repeat(40) };
    const share = await run(exporter.share({ ...request, metadata: most }));
    const importer = await world.importer(bob, alice);
    const { metadata } = importer.offered(share.id);
    assert.equal(metadata.name, most.name);
    assert.deepEqual(metadata.userBytes, most.userBytes);
  }));
