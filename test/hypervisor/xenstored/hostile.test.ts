// Clients that send garbage, never read, or scribble over their ring: they lose at most their own connection.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../../src/abi/page.ts';
import { XS_CONTROL, XS_WATCH } from '../../../src/abi/xs-wire.ts';
import { remove, setPermissions, write } from '../../../src/hypervisor/xenstored/operations.ts';
import { DEFAULT_QUOTAS } from '../../../src/hypervisor/xenstored/quotas.ts';
import { domId } from '../../../src/xen/ids.ts';
import { bytePipe } from '../../../src/xen/pipe.ts';
import { XenstoreRing } from '../../../src/xen/xenstore-ring.ts';
import { encodeMessage } from '../../../src/xen/xenstore-wire.ts';
import { World } from './world.ts';

/** What is left must still work, and its books must be right. */
async function checkAlive(world: World): Promise<void> {
  const dom0 = world.raw(0);
  assert.equal(await world.run(dom0.ask(XS_CONTROL, 'check\0')), 'OK\0');
  await world.run(dom0.ok(11, '/alive\0yes'));
  assert.equal(await world.run(dom0.ask(2, '/alive\0')), 'yes');
}

const word = fc.constantFrom(
  '/',
  '/a',
  '/a/b',
  'x',
  '@releaseDomain',
  'n0',
  'b5',
  '0',
  '1',
  'T',
  'F',
  '',
);
const payload = fc.oneof(
  fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
  fc.array(word, { maxLength: 5 }).map((words) => words.map((one) => `${one}\0`).join('')),
);
const message = fc
  .record({
    type: fc.oneof(fc.integer({ min: 0, max: 26 }), fc.integer({ min: 0, max: 0xffff_ffff })),
    requestId: fc.nat(),
    transactionId: fc.integer({ min: 0, max: 3 }),
    payload,
  })
  .map(({ payload: text, ...head }) => encodeMessage(head, text));
const garbage = fc.oneof(
  { weight: 6, arbitrary: message },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 100 }) },
);

test('garbage, as a guest or as the control domain, ends no more than the connection it came by', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(garbage, { maxLength: 40 }),
      fc.nat(),
      fc.constantFrom(0, 5),
      async (pieces, seed, domain) => {
        const world = new World(seed);
        const domid = domId(domain);
        world.server.introduceDomain(domid);
        const [channel, serverEnd] = bytePipe(world.runtime);
        channel.listen({ onBytes: () => {}, onClose: () => {} });
        world.server.accept({ channel: serverEnd, domid });
        for (const piece of pieces) {
          const cut = world.runtime.random.below(piece.length + 1);
          channel.send(piece.subarray(0, cut));
          channel.send(piece.subarray(cut));
        }
        await world.idle();
        await checkAlive(world);
      },
    ),
    { numRuns: 150 },
  );
});

test('a guest that scribbles over its ring page while it talks loses at most its connection', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 2100 }), fc.nat(255)), { maxLength: 40 }),
      fc.nat(),
      async (scribbles, seed) => {
        const world = new World(seed);
        const { runtime, server } = world;
        const page = new Uint8Array(PAGE_SIZE);
        const ring: XenstoreRing = new XenstoreRing({
          runtime,
          page,
          side: 'server',
          notify: () => {},
        });
        const guest = new XenstoreRing({
          runtime,
          page,
          side: 'guest',
          notify: () => runtime.defer(() => ring.onEvent()),
        });
        guest.listen({ onBytes: () => {}, onClose: () => {} });
        server.introduceDomain(domId(5));
        server.accept({ channel: ring, domid: domId(5) });
        for (const [at, value] of scribbles) {
          guest.send(encodeMessage({ type: 2, requestId: 1, transactionId: 0 }, '/a\0'));
          page[at] = value;
          ring.onEvent();
          await runtime.step();
        }
        await world.idle();
        await checkAlive(world);
      },
    ),
    { numRuns: 150 },
  );
});

test('a guest that never takes its replies is not served on, and what waits for it is bounded', async () => {
  const world = new World(1);
  const { runtime, server } = world;
  server.introduceDomain(domId(5));
  const [channel, serverEnd] = bytePipe(runtime);
  channel.listen({ onBytes: () => assert.fail('it is paused'), onClose: () => {} });
  channel.pause();
  server.accept({ channel: serverEnd, domid: domId(5) });
  const request = encodeMessage({ type: XS_WATCH, requestId: 1, transactionId: 0 }, 'x\0', 't\0');
  for (let i = 0; i < 200; i++) channel.send(request);
  await world.idle();
  const waiting = serverEnd.pendingBytes;
  assert.ok(waiting > 0 && waiting < 20 * 100, `${waiting} bytes of replies wait`);
  assert.ok(channel.pendingBytes > 0, 'its further requests wait with it');
  await checkAlive(world);
});

test('watch events that are not taken are merged, and cost the connection when they are too many', async () => {
  const world = new World(2);
  const { runtime, server } = world;
  const dom0 = world.raw(0);
  server.introduceDomain(domId(5));
  const [channel, serverEnd] = bytePipe(runtime);
  let over = false;
  channel.listen({
    onBytes: () => {},
    onClose: () => {
      over = true;
    },
  });
  const connection = server.accept({ channel: serverEnd, domid: domId(5) });
  await world.run(dom0.ok(12, '/w\0'));
  await world.run(dom0.ok(14, '/w\0', 'n0\0', 'r5\0'));
  const watch = encodeMessage({ type: XS_WATCH, requestId: 1, transactionId: 0 }, '/w\0', 't\0');
  channel.send(watch);
  await world.idle();
  channel.pause();
  for (let i = 0; i < 500; i++) await world.run(dom0.ok(11, '/w/same\0'));
  assert.ok(serverEnd.pendingBytes < 17_000, 'the same event waits once, past what is on its way');
  assert.equal(over, false);
  for (let i = 0; i < 10_000 && server.connections === 2; i++) {
    connection.watchEvent(`/w/${i}-${'x'.repeat(1000)}`, 't');
  }
  assert.equal(server.connections, 1);
  channel.resume();
  await world.idle();
  assert.equal(over, true);
  await checkAlive(world);
});

test('a transaction that writes one node over and over holds no more than the node', async () => {
  const world = new World(3);
  const guest = world.raw(5);
  const { store } = world.server;
  await world.run(world.raw(0).ok(14, '/\0', 'n5\0'));
  const transaction = store.begin(1024);
  const context = {
    view: transaction,
    caller: { domid: domId(5), target: undefined, privileged: false },
    quotas: DEFAULT_QUOTAS,
  };
  for (let i = 0; i < 5000; i++) {
    write(context, '/a/b', new Uint8Array(1000).fill(i));
    if (i % 7 === 0) remove(context, '/a');
    setPermissions(context, '/', [{ domid: domId(5), read: i % 2 === 0, write: false }]);
  }
  assert.equal(transaction.mutations().length, 2);
  assert.equal(transaction.events.length, 3);
  store.commit(transaction, DEFAULT_QUOTAS);
  assert.equal(await world.run(guest.ask(2, '/a/b\0')), '\x87'.repeat(1000));
  await checkAlive(world);
});

test('a path of a thousand components is refused, missed or made without walking it over and over', async () => {
  const world = new World(4);
  const dom0 = world.raw(0);
  const deep = '/d'.repeat(1500);
  assert.equal(await world.run(dom0.ask(2, `${deep}\0`)), 'ENOENT\0');
  await world.run(dom0.ok(12, `${deep}\0`));
  assert.equal(await world.run(dom0.ask(2, `${deep}\0`)), '');
  assert.equal(world.server.store.owned(domId(0)), 1501);
  await world.run(dom0.ok(13, '/d\0'));
  assert.equal(world.server.store.owned(domId(0)), 1);
});
