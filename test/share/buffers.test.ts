// Buffers from one domain to another: offered, opened, read in place, updated, closed and withdrawn.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shareError, sharing } from './world.ts';

test('what one guest writes another reads in place, and nothing is left', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const exporter = world.exporter(alice);
    const share = await run(
      exporter.share({
        to: bob.domain.domid,
        memory: { byteLength: 10_000 },
        metadata: { name: 'a buffer', userBytes: Uint8Array.of(1, 2, 3) },
      }),
    );
    share.bytes.fill(7);
    const [event] = await world.next(importer);
    assert.equal(event!.type, 'offered');
    assert.equal(event!.share.id, share.id);
    assert.equal(event!.share.metadata.name, 'a buffer');
    assert.deepEqual([...event!.share.metadata.userBytes], [1, 2, 3]);
    assert.equal(share.state, 'offered');
    const open = await run(importer.open(share.id));
    assert.equal(share.state, 'open');
    assert.equal(open.bytes.length, 10_000);
    assert(open.bytes.every((byte) => byte === 7));
    share.bytes[9_999] = 8;
    assert.equal(open.bytes[9_999], 8, 'the same memory');
    const view = open.bytes;
    await run(open.close());
    assert.equal(view[0], 0, 'the view is revoked');
    await world.until(() => share.state === 'offered', 'the exporter hears of it');
    assert.deepEqual(await run(share.withdraw()), { state: 'released' });
    assert.equal(world.granted(alice), 0);
    const [end] = await world.next(importer);
    assert.equal(end!.type, 'withdrawn');
    await assert.rejects(run(importer.open(share.id)), shareError('unknown-id'));
  }));

test('what is filled before it is offered is there when it is; what cannot be filled is not offered', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const exporter = world.exporter(alice);
    const request = { to: bob.domain.domid, memory: { byteLength: 8192 } };
    const failure = new Error('no such file');
    const fail = () => Promise.reject(failure);
    await assert.rejects(run(exporter.share({ ...request, fill: fail })), failure);
    assert.equal(world.granted(alice), 0);
    const fill = async (bytes: Uint8Array) => {
      assert.equal(importer.offers.length, 0);
      bytes.fill(9);
    };
    const share = await run(exporter.share({ ...request, fill }));
    const [event] = await world.next(importer);
    assert.equal(event!.share.id, share.id);
    const open = await run(importer.open(share.id));
    assert(open.bytes.every((byte) => byte === 9));
  }));

test('a share can be opened again, as often as one likes', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const share = await run(
      world.exporter(alice).share({ to: bob.domain.domid, memory: { byteLength: 1 } }),
    );
    await world.next(importer);
    for (let round = 1; round <= 5; round++) {
      const open = await run(importer.open(share.id));
      assert.equal(share.opens, round);
      await run(open.close());
    }
  }));

test('an open share that is withdrawn may be held until the deadline, and no longer', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const share = await run(
      world.exporter(alice).share({ to: bob.domain.domid, memory: { byteLength: 4096 } }),
    );
    share.bytes[0] = 5;
    await world.next(importer);
    const open = await run(importer.open(share.id));
    const startMs = world.runtime.nowMs();
    const withdrawn = share.withdraw({ deadlineMs: 300 });
    const [event] = await world.next(importer);
    assert.equal(event!.type, 'withdrawn');
    assert.equal(event!.deadlineMs, 300);
    assert.equal(await run(open.over), 'withdrawn');
    await world.pause(200);
    assert.equal(open.bytes[0], 5, 'it may be held');
    assert.equal(share.state, 'withdrawing');
    assert.deepEqual(await run(withdrawn), { state: 'released' });
    const tookMs = world.runtime.nowMs() - startMs;
    assert(tookMs >= 300 && tookMs < 500, `${tookMs} ms`);
    assert.throws(() => open.bytes, shareError('withdrawn'));
  }));

test('the exporter learns at once when the importer closes before the deadline', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const share = await run(
      world.exporter(alice).share({ to: bob.domain.domid, memory: { byteLength: 4096 } }),
    );
    await world.next(importer);
    const open = await run(importer.open(share.id));
    const withdrawn = share.withdraw({ deadlineMs: 60_000 });
    await run(open.over);
    await run(open.close());
    assert.deepEqual(await run(withdrawn), { state: 'released' });
    assert(world.runtime.nowMs() < 1_000, `${world.runtime.nowMs()} ms`);
  }));

test('metadata are updated, and a buffer that is shared again keeps its id', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const exporter = world.exporter(alice);
    const to = bob.domain.domid;
    const buffer = await run(alice.domain.memory.allocate({ pages: 3, contiguity: 'none' }));
    const request = { to, memory: { buffers: [buffer], dataOffset: 100, byteLength: 9000 } };
    const share = await run(exporter.share({ ...request, metadata: { name: 'first' } }));
    const [offered] = await world.next(importer);
    const open = await run(importer.open(share.id));
    const again = await run(exporter.share({ ...request, metadata: { name: 'second' } }));
    assert.equal(again, share);
    const [updated] = await world.next(importer);
    assert.equal(updated!.type, 'updated');
    assert.equal(updated!.share, offered!.share);
    assert.equal(open.metadata.name, 'second');
    buffer.bytes[100] = 42;
    buffer.bytes[9099] = 43;
    assert.equal(open.bytes[0], 42);
    assert.equal(open.bytes[8999], 43);
    assert.equal(open.bytes.length, 9000);
    await assert.rejects(run(exporter.share({ ...request, writable: true })), shareError('in-use'));
    const { buffers } = request.memory;
    for (const memory of [{ buffers }, { ...request.memory, dataOffset: 0 }]) {
      await assert.rejects(run(exporter.share({ to, memory })), shareError('in-use', /9000 bytes/));
    }
    await run(open.close());
    await run(share.withdraw());
    const both = await run(Promise.all([exporter.share(request), exporter.share(request)]));
    assert.equal(both[0], both[1], 'asked for twice at once, it is one share');
    await run(both[0]!.withdraw());
    const third = await run(exporter.share(request));
    assert.notEqual(third.id, share.id, 'a share that was withdrawn is over');
    await run(third.withdraw());
    assert.deepEqual(await run(buffer.free()), { heldPages: 0, evidence: 'grant table' });
  }));

test('the importer can write only where both sides say so', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const exporter = world.exporter(alice);
    const to = bob.domain.domid;
    const readable = await run(exporter.share({ to, memory: { byteLength: 1 } }));
    const writable = await run(exporter.share({ to, memory: { byteLength: 1 }, writable: true }));
    await world.next(importer, 2);
    await assert.rejects(
      run(importer.open(readable.id, { writable: true })),
      shareError('not-writable'),
    );
    const open = await run(importer.open(writable.id, { writable: true }));
    open.bytes[0] = 3;
    assert.equal(writable.bytes[0], 3);
  }));

test('domain 0 shares with a guest, and a guest with domain 0, which listens to any', () =>
  sharing(async (world) => {
    const { alice, host, run } = world;
    const ofDom0 = await world.importer(host, { from: 'any' });
    const ofAlice = await world.importer(alice, { from: host.dom0.domid });
    const up = await run(
      world.exporter(alice).share({ to: host.dom0.domid, memory: { byteLength: 5 } }),
    );
    const down = await run(
      world.exporter(host).share({ to: alice.domain.domid, memory: { byteLength: 6 } }),
    );
    up.bytes[4] = 1;
    down.bytes[5] = 2;
    await world.next(ofDom0);
    await world.next(ofAlice);
    assert.equal((await run(ofDom0.open(up.id))).bytes[4], 1);
    assert.equal((await run(ofAlice.open(down.id))).bytes[5], 2);
  }));

test('a domain that comes later is listened to as well by who accepts any', () =>
  sharing(async (world) => {
    const { host, run } = world;
    const importer = await world.importer(host, { from: 'any' });
    const guest = await run(host.createGuest({ name: 'late' }));
    const late = { guest, domain: host.enter(guest) };
    const exporter = world.exporter(late);
    const share = await run(exporter.share({ to: host.dom0.domid, memory: { byteLength: 5 } }));
    const [event] = await world.next(importer);
    assert.equal(event!.share.id, share.id);
    await run(exporter.close());
    await run(guest.destroy());
  }));
