// Exporters that lie: what they offer is refused with a word and counted, what they do to an open share is a typed
// error, and a third domain notices nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RawExporter, RawImporter, type RawOffer } from '../../sim/guests/raw-ends.ts';
import { ProtocolViolation } from '../../src/runtime/errors.ts';
import type { Gref } from '../../src/xen/ids.ts';
import { shareError, sharing } from './world.ts';

const REFUSED: readonly (readonly [string, RawOffer, string])[] = [
  ['a wrong magic number', { fields: { magic: 1 } }, 'malformed-offer'],
  ['another id than its node', { fields: { id: new Uint8Array(16) } }, 'malformed-offer'],
  ['no slots', { fields: { slots: 0 } }, 'malformed-offer'],
  ['two slots without being a stream', { fields: { slots: 2 } }, 'malformed-offer'],
  ['65 slots', { stream: true, fields: { slots: 65 } }, 'malformed-offer'],
  ['slots of no pages', { fields: { slot_pages: 0 } }, 'malformed-offer'],
  ['more than 4 GiB', { fields: { slot_pages: 0xffff_ffff } }, 'malformed-offer'],
  ['more bytes than pages', { fields: { slot_bytes: 4097n } }, 'malformed-offer'],
  ['more pages than bytes', { slotPages: 2, fields: { slot_bytes: 1n } }, 'malformed-offer'],
  ['2^64 - 1 bytes', { fields: { slot_bytes: 2n ** 64n - 1n } }, 'malformed-offer'],
  ['an offset beyond the page', { fields: { data_offset: 4096 } }, 'malformed-offer'],
  ['no directory', { fields: { directory_ref: 0 } }, 'malformed-offer'],
  ['no control page', { fields: { control_ref: 0 } }, 'malformed-offer'],
  ['metadata that never rest', { fields: { generation: 3 } }, 'restless-metadata'],
  ['too much metadata', { metadataBytes: 4097 }, 'malformed-offer'],
  ['too little metadata', { metadataBytes: 8 }, 'malformed-metadata'],
  ['user bytes that are not there', { metadata: { user_bytes: 1 } }, 'malformed-metadata'],
  ['an unknown type', { metadata: { type: 7 } }, 'malformed-metadata'],
  ['2^64 - 1 bytes in all', { metadata: { total_bytes: 2n ** 64n - 1n } }, 'malformed-metadata'],
  [
    'a picture larger than its slot',
    { metadata: { type: 1, width: 64, height: 65, stride: 64, format: 1 } },
    'malformed-metadata',
  ],
  [
    'a picture whose size overflows',
    { metadata: { type: 1, width: 1, height: 0xffff_ffff, stride: 0xffff_ffff } },
    'malformed-metadata',
  ],
  [
    'a name that is no text',
    { metadata: { name: new Uint8Array(80).fill(0xff) } },
    'malformed-metadata',
  ],
  ['a node of garbage', { node: () => 'garbage' }, 'malformed-node'],
  ['a node without words', { node: () => 'versions=1' }, 'missing-node'],
  [
    'a node of another version',
    {
      node: ({ offerRefs, port }) =>
        `versions=2,3 offer-refs=${offerRefs} event-channel=${port} generation=2`,
    },
    'unsupported-version',
  ],
  [
    'a port of 0',
    { node: ({ offerRefs }) => `versions=1 offer-refs=${offerRefs} event-channel=0 generation=2` },
    'out-of-range-node',
  ],
  [
    'a node that is very long',
    {
      node: ({ offerRefs, port }) =>
        `versions=1 offer-refs=${offerRefs} event-channel=${port} generation=2 ${'x=y '.repeat(200)}`,
    },
    'malformed-node',
  ],
];

for (const [what, offer, reason] of REFUSED) {
  test(`an offer with ${what} is refused: ${reason}`, () =>
    sharing(async (world) => {
      const { alice, bob, carol, run } = world;
      const importer = await world.importer(bob, alice, carol);
      const honest = await run(
        world.exporter(carol).share({ to: bob.domain.domid, memory: { byteLength: 9 } }),
      );
      await world.next(importer);
      const open = await run(importer.open(honest.id));
      const exporter = await RawExporter.open(world, {
        from: alice,
        to: bob.domain.domid,
        ...offer,
      });
      const refused = () => importer.refused.get(alice.domain.domid)!;
      await world.until(
        () => refused()[reason] === 1,
        `it is refused: ${JSON.stringify(refused())}`,
      );
      assert.deepEqual(
        importer.offers.map(({ id }) => id),
        [honest.id],
      );
      await world.pause(10);
      const answers = `/local/domain/${bob.domain.domid}/data/xen-zcopy/answers/${alice.domain.domid}`;
      const answer = await run(alice.domain.store.read(`${answers}/${exporter.id}`));
      assert.equal(answer, `refused ${reason}`, 'the exporter can read why');
      await run(alice.domain.store.remove(exporter.path));
      await world.pause(10);
      assert.deepEqual(await run(bob.domain.store.directory(answers)), []);
      honest.bytes[0] = 6;
      assert.equal(open.bytes[0], 6, 'the third domain goes on');
    }));
}

test('an unknown word in a node is passed over: a later version may have more', () =>
  sharing(async (world) => {
    const { alice, bob } = world;
    const importer = await world.importer(bob, alice);
    await RawExporter.open(world, {
      from: alice,
      to: bob.domain.domid,
      node: ({ offerRefs, port }) =>
        `versions=1,2 offer-refs=${offerRefs} event-channel=${port} generation=2 colour=blue`,
    });
    const [event] = await world.next(importer);
    assert.equal(event!.type, 'offered');
  }));

const OPENED: readonly (readonly [string, RawOffer, 'malformed' | 'exporter-gone'])[] = [
  ['a directory with a reference of 0', { refs: () => [0 as Gref] }, 'malformed'],
  ['a directory that is not granted', { fields: { directory_ref: 4000 } }, 'malformed'],
  ['data that are not granted', { refs: () => [4001 as Gref] }, 'malformed'],
  ['a control page that is not granted', { fields: { control_ref: 4002 } }, 'exporter-gone'],
];

for (const [what, offer, reason] of OPENED) {
  test(`a share with ${what} cannot be opened (${reason}), and leaves nothing mapped`, () =>
    sharing(async (world) => {
      const { alice, bob, run } = world;
      const importer = await world.importer(bob, alice);
      const exporter = await RawExporter.open(world, {
        from: alice,
        to: bob.domain.domid,
        ...offer,
      });
      await world.next(importer);
      const before = world.mapped(bob);
      await assert.rejects(run(importer.open(exporter.id as never)), shareError(reason));
      assert.equal(world.mapped(bob), before);
    }));
}

for (const taken of [false, true]) {
  const port = taken ? 'taken' : 'free';
  test(`a page that is no control page any more is not written to, its port being ${port} (world 2764131249)`, () =>
    sharing(async (world) => {
      const { alice, bob, run } = world;
      const from = { from: alice, to: bob.domain.domid };
      const importer = await world.importer(bob, alice);
      const request = { domid: from.to, pages: 1, writable: true };
      const picture = await run(alice.domain.grants.share(request));
      picture.bytes.fill(0x1c);
      const fields = { control_ref: picture.refs[0]! };
      const exporter = await RawExporter.open(world, { ...from, fields });
      await world.next(importer);
      if (taken)
        await RawImporter.open(world, { of: bob, exporter: alice.domain.domid, id: exporter.id });
      await assert.rejects(run(importer.open(exporter.id as never)), shareError('exporter-gone'));
      await world.pause(10);
      assert(picture.bytes.every((byte) => byte === 0x1c));
    }));
}

test('an exporter that does not answer is given up', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const exporter = await RawExporter.open(world, { from: alice, to: bob.domain.domid });
    exporter.onEvent = () => {};
    await world.next(importer);
    await assert.rejects(run(importer.open(exporter.id as never)), shareError('timed-out'));
    assert.equal(world.mapped(bob), 0);
  }));

const FRAMES: readonly (readonly [string, object, string])[] = [
  ['longer than its slot', { bytes: 4097n }, 'malformed-frame'],
  ['of 2^64 - 1 bytes', { bytes: 2n ** 64n - 1n }, 'malformed-frame'],
  ['numbered 0', { sequence: 0n }, 'malformed-frame'],
  ['numbered 2^64 - 1', { sequence: 2n ** 64n - 1n }, 'malformed-frame'],
  ['in a state that is none', { state: 9 }, 'malformed-slot-state'],
];

for (const [what, frame, reason] of FRAMES) {
  test(`a frame ${what} is a violation: ${reason}`, () =>
    sharing(async (world) => {
      const { alice, bob, run } = world;
      const importer = await world.importer(bob, alice);
      const to = bob.domain.domid;
      const exporter = await RawExporter.open(world, { from: alice, to, stream: true, slots: 2 });
      await world.next(importer);
      const open = await run(importer.open(exporter.id as never));
      const waiting = run(open.frames.acquire());
      const rejected = assert.rejects(waiting, (error) => {
        assert(error instanceof ProtocolViolation);
        assert.equal(error.reason, reason);
        return true;
      });
      exporter.frame(1, frame);
      await rejected;
      assert.equal(importer.refused.get(alice.domain.domid)![reason], 1);
      await run(open.close());
    }));
}

test('a frame whose number goes back is a violation', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, alice);
    const to = bob.domain.domid;
    const exporter = await RawExporter.open(world, { from: alice, to, stream: true, slots: 2 });
    await world.next(importer);
    const open = await run(importer.open(exporter.id as never));
    exporter.frame(0, { sequence: 5n });
    (await run(open.frames.acquire()))!.release();
    exporter.frame(1, { sequence: 5n });
    await assert.rejects(run(open.frames.acquire()), /sequence-went-back/);
  }));

test('a flood of nodes costs what the rule allows, and no more', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const from = alice.domain.domid;
    const importer = await world.importer(bob, { from, maxShares: 3 });
    const exporter = world.exporter(alice);
    const shares = [];
    for (let i = 0; i < 10; i++) {
      shares.push(await run(exporter.share({ to: bob.domain.domid, memory: { byteLength: 1 } })));
    }
    await world.pause(100);
    assert.equal(importer.offers.length, 3);
    assert.deepEqual(importer.refused.get(from), { 'over-budget': 7 });
    await assert.rejects(run(shares[9]!.opened()), shareError('over-budget', /over-budget/));
    await run(shares[0]!.withdraw());
    await world.pause(100);
    const more = await run(exporter.share({ to: bob.domain.domid, memory: { byteLength: 1 } }));
    await world.until(() => importer.offers.length === 3, 'there is room again');
    assert(importer.offers.some(({ id }) => id === more.id));
  }));

test('an exporter that offers more bytes than the rule allows is told so', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const from = alice.domain.domid;
    const importer = await world.importer(bob, { from, maxBytes: 3 * 4096 });
    const exporter = world.exporter(alice);
    const to = bob.domain.domid;
    await run(exporter.share({ to, memory: { byteLength: 2 * 4096 } }));
    const over = await run(exporter.share({ to, memory: { byteLength: 2 * 4096 } }));
    await assert.rejects(run(over.opened()), shareError('over-budget'));
    assert.equal(importer.offers.length, 1);
    const stream = await run(exporter.stream({ to, memory: { byteLength: 1 }, slots: 1 }));
    await world.until(() => importer.offers.length === 2, 'what fits is accepted');
    await run(stream.withdraw());
  }));

test('what the policy does not name is not listened to', () =>
  sharing(async (world) => {
    const { alice, bob, carol, run } = world;
    const importer = await world.importer(bob, carol);
    await run(world.exporter(alice).share({ to: bob.domain.domid, memory: { byteLength: 1 } }));
    await world.pause(50);
    assert.deepEqual(importer.offers, []);
    assert.deepEqual([...importer.refused.keys()], [carol.domain.domid]);
  }));

test('a kind that the policy does not accept is refused', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const importer = await world.importer(bob, { from: alice.domain.domid, kinds: ['buffer'] });
    const stream = await run(
      world.exporter(alice).stream({ to: bob.domain.domid, memory: { byteLength: 1 } }),
    );
    await assert.rejects(run(stream.opened()), shareError('refused', /kind-not-accepted/));
    assert.deepEqual(importer.offers, []);
  }));

test('a guest cannot accept any: it may not list the others, and is told so', () =>
  sharing(async (world) => {
    await assert.rejects(world.importer(world.bob, { from: 'any' }), /only domain 0 may list/);
  }));
