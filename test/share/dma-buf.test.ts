// Shares as dma-bufs at their importer, for drivers of its host: where the host can, and with the reason where not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestDevice } from '../zcopy/world.ts';
import { shareError, sharing } from './world.ts';

test('a share that may be written to becomes a dma-buf, which is waited for when it is closed', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const share = await run(
      world
        .exporter(alice)
        .share({ to: bob.domain.domid, memory: { byteLength: 9000 }, writable: true }),
    );
    await world.next(importer);
    const open = await run(importer.open(share.id, { writable: true, dmaBuf: 'required' }));
    assert.equal(open.memory?.pages, 3);
    assert.equal(open.withoutDmaBuf, undefined);
    const attachment = new TestDevice().attach(open.memory);
    const view = open.bytes;
    view[0] = 7;
    assert.equal(share.bytes[0], 7);
    const closing = await run(open.close({ timeoutMs: 50 }));
    assert.equal(closing.state, 'quarantined');
    assert.match(open.holders[0]!.who, /imported the dma-buf/);
    const withdrawal = await run(share.withdraw({ deadlineMs: 50 }));
    assert.equal(withdrawal.state, 'quarantined', 'a driver still has the pages');
    attachment[Symbol.dispose]();
    await run(open.released);
    await run(share.released);
    assert.equal(world.granted(alice), 0);
  }));

test('a share for reading is mapped, and the reason for having no dma-buf is said', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const share = await run(
      world.exporter(alice).share({ to: bob.domain.domid, memory: { byteLength: 10 } }),
    );
    await world.next(importer);
    const open = await run(importer.open(share.id, { dmaBuf: 'if-possible' }));
    assert.equal(open.memory, undefined);
    assert.match(open.withoutDmaBuf!, /cannot be mapped/);
    share.bytes[9] = 3;
    assert.equal(open.bytes[9], 3);
    await run(open.close());
    await assert.rejects(
      run(importer.open(share.id, { dmaBuf: 'required' })),
      shareError('not-writable', /dma-buf/),
    );
    assert.deepEqual(
      importer.refused.get(alice.domain.domid),
      {},
      'the exporter did nothing wrong',
    );
  }));

test('each slot of a stream has a dma-buf of its own', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const request = {
      to: bob.domain.domid,
      memory: { byteLength: 4096 },
      slots: 3,
      writable: true,
    };
    const share = await run(world.exporter(alice).stream(request));
    await world.next(importer);
    const open = await run(importer.open(share.id, { writable: true, dmaBuf: 'required' }));
    const frame = await run(share.producer.acquire());
    frame.publish();
    const taken = (await run(open.frames.acquire()))!;
    const attachment = new TestDevice().attach(taken.memory);
    attachment[Symbol.dispose]();
    taken.release();
  }));
