// Xenstore from both sides: what clients send to our xenstored, what a xenstored sends to our client, and the ring
// page between them.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { XENSTORE_PAYLOAD_MAX, XS_CONTROL, XS_MKDIR, XS_READ } from '../../src/abi/xs-wire.ts';
import { ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { bytePipe } from '../../src/xen/pipe.ts';
import { XenstoreClient } from '../../src/xen/xenstore-client.ts';
import { XenstoreRing } from '../../src/xen/xenstore-ring.ts';
import { encodeMessage, MessageParser, type XenstoreMessage } from '../../src/xen/xenstore-wire.ts';
import { World } from '../hypervisor/xenstored/world.ts';
import { fuzzer, orRefused, u8, u32 } from './fuzzer.ts';

const GUEST = 5;
/** Steps after which a world that does not come to rest is declared broken. */
const STEPS_MAX = 20_000;

const message = fc.record({ type: u32, id: u32, tx: u32, payload: fc.string({ maxLength: 40 }) });

/** Bytes in pieces of any size become the messages that they are, or end the stream. */
export const xenstoreWire = fuzzer({
  name: 'xenstore-wire',
  parsers: ['xen/xenstore-wire.ts'],
  runs: 1000,
  input: fc.record({
    messages: fc.array(message, { maxLength: 6 }),
    length: fc.option(u32, { nil: undefined }),
    piece: fc.integer({ min: 1, max: 100 }),
  }),
  check: ({ messages, length, piece }) => {
    const sent = messages.map(({ type, id, tx, payload }) => ({
      type,
      requestId: id,
      transactionId: tx,
      payload: Buffer.from(payload),
    }));
    const stream = Buffer.concat(sent.map((each) => encodeMessage(each, each.payload)));
    if (length !== undefined && messages.length > 0) stream.writeUInt32LE(length, 12);
    const parser = new MessageParser();
    const got: XenstoreMessage[] = [];
    for (let at = 0; at < stream.length; at += piece) {
      const bytes = Uint8Array.from(stream.subarray(at, at + piece));
      const going = orRefused(() => {
        parser.push(bytes, (each) => got.push(each));
        return true;
      });
      if (!going) {
        // A wrong length has the next message begin anywhere.
        assert(length !== undefined, 'messages as they should be are refused');
        return;
      }
      bytes.fill(0xff);
    }
    if (length === undefined) assert.deepEqual(got, sent);
  },
});

const PATHS = [
  '/',
  '/a',
  '/a/b',
  'x',
  'x/y',
  '/local/domain/5/x',
  '@releaseDomain',
  '@x',
  '//',
  '',
];
const word = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...PATHS) },
  {
    weight: 3,
    arbitrary: fc.constantFrom('n0', 'b5', 'r5', 'n70000', '0', '1', '5', 'T', 'F', '99'),
  },
  { weight: 1, arbitrary: fc.string({ maxLength: 12 }) },
  { weight: 1, arbitrary: fc.constantFrom('/d'.repeat(1500), 'é', 'a'.repeat(4000)) },
);
const request = fc.record({
  type: fc.oneof({ weight: 9, arbitrary: fc.nat(26) }, { weight: 1, arbitrary: u32 }),
  tx: fc.nat(3),
  words: fc.array(word, { maxLength: 4 }),
  unended: fc.nat(5).map((roll) => roll === 0),
});
/** What the control domain asks about domains, and everybody about transactions and parts of long listings. */
const special = fc.record({
  type: fc.constantFrom(1, 4, 6, 6, 8, 9, 10, 17, 18, 19, 22, 7, 14),
  tx: fc.constantFrom(0, 0, 0, 1),
  words: fc.oneof(
    fc.array(fc.constantFrom('5', '6', '77', '0', '32752', '99999', 'T', 'F', ''), {
      minLength: 1,
      maxLength: 3,
    }),
    fc.tuple(fc.constantFrom('/', '/long', '/a', '@releaseDomain', '@é'), fc.nat(5000).map(String)),
  ),
  unended: fc.constant(false),
});
const starts = fc.constant({ type: 6, tx: 0, words: [''], unended: false });
const asked = fc.oneof(
  { weight: 6, arbitrary: fc.array(request, { minLength: 1, maxLength: 1 }) },
  { weight: 3, arbitrary: fc.array(special, { minLength: 1, maxLength: 1 }) },
  // More transactions than a guest may have.
  { weight: 1, arbitrary: fc.array(starts, { minLength: 12, maxLength: 12 }) },
);

/** Whatever two domains and the control domain ask, xenstored lives, and its books are right. */
export const xenstoredRequests = fuzzer({
  name: 'xenstored-requests',
  parsers: ['hypervisor/xenstored/requests.ts', 'hypervisor/xenstored/path.ts'],
  runs: 150,
  input: fc.record({
    seed: fc.nat(1000),
    requests: fc.array(fc.tuple(fc.constantFrom(0, GUEST, 6), asked), { maxLength: 30 }),
    long: fc.nat(4).map((roll) => roll === 0),
    garbage: fc.array(u8, { maxLength: 40 }),
  }),
  check: async ({ seed, requests, long, garbage }) => {
    const world = new World(seed);
    if (long) await makeLongDirectory(world);
    const channels = new Map(
      [0, GUEST, 6].map((domid) => {
        const channel = world.connect(domid);
        channel.listen({ onBytes: () => {}, onClose: () => {} });
        return [domid, channel] as const;
      }),
    );
    const each = requests.flatMap(([domid, asks]) => asks.map((ask) => ({ domid, ...ask })));
    for (const { domid, type, tx, words, unended } of each) {
      const payload = `${words.join('\0')}${unended ? '' : '\0'}`.slice(0, XENSTORE_PAYLOAD_MAX);
      const head = { type, requestId: 1, transactionId: tx };
      channels.get(domid)!.send(encodeMessage(head, payload));
      if (world.runtime.random.below(3) === 0) await world.runtime.step();
    }
    channels.get(6)!.send(Uint8Array.from(garbage));
    await world.idle();
    const control = world.raw(0);
    assert.equal(await world.run(control.ask(XS_CONTROL, 'check\0')), 'OK\0');
    await world.run(control.ok(11, '/alive\0yes'));
    assert.equal(await world.run(control.ask(XS_READ, '/alive\0')), 'yes');
  },
});

/** A directory whose listing does not fit into one message. */
async function makeLongDirectory(world: World): Promise<void> {
  const control = world.raw(0);
  for (let child = 0; child < 60; child++) {
    await world.run(control.ok(XS_MKDIR, `/long/${child}-${'x'.repeat(80)}\0`));
  }
}

const reply = fc.record({
  type: fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom('asked', 'error', 'event' as const) },
    { weight: 1, arbitrary: fc.constant('other' as const) },
  ),
  id: fc.oneof({ weight: 9, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: u32 }),
  payload: fc.oneof(
    fc.constantFrom('OK\0', '1\0', '0\0', 'a\0b\0', 'ENOENT\0', 'EAGAIN\0', 'EACCES\0', 'E2BIG\0'),
    fc.constantFrom(
      '',
      'n0\0r5\0',
      '7\0a\0',
      '7\0b\0\0',
      '8\0a\0',
      '7\0a\0\0',
      '7\0',
      'x\0w1\0',
      '/a\0w1\0',
      'abc\0',
      '4294967296\0',
    ),
    fc.string({ maxLength: 20 }),
  ),
});
/** Answers to a client that lists: too long for one message, then a part, and the end or another generation. */
const LONG_LISTINGS = [[], ['7\0b\0\0'], ['8\0b\0\0', '8\0'], ['7\0', '7\0c\0\0']].map((parts) => [
  { type: 'error' as const, id: -1, payload: 'E2BIG\0' },
  { type: 'asked' as const, id: -1, payload: '7\0a\0' },
  ...parts.map((payload) => ({ type: 'asked' as const, id: -1, payload })),
]);
const ASKS = ['read', 'list', 'write', 'permissions', 'watch', 'transaction', 'remove'] as const;
type Ask = (typeof ASKS)[number];

/** Whatever a xenstored answers, everything that was asked of the client settles, with a typed error if any. */
export const xenstoreClient = fuzzer({
  name: 'xenstore-client',
  parsers: ['xen/xenstore-access.ts'],
  runs: 300,
  input: fc.record({
    seed: fc.nat(1000),
    asks: fc.array(fc.constantFrom(...ASKS), { minLength: 1, maxLength: 6 }),
    listing: fc.option(fc.nat(LONG_LISTINGS.length - 1), { nil: undefined, freq: 2 }),
    replies: fc.array(reply, { maxLength: 30 }),
  }),
  check: async ({ seed, asks: wanted, listing, replies }) => {
    const runtime = new VirtualRuntime(seed);
    const [channel, server] = bytePipe(runtime);
    const lists = listing !== undefined;
    const asks: readonly Ask[] = lists ? ['list', ...wanted] : wanted;
    const left = [...(lists ? LONG_LISTINGS[listing]! : []), ...replies];
    const parser = new MessageParser();
    const send = (asked: XenstoreMessage) => {
      const next = left.shift();
      if (!next) {
        server.close();
        return;
      }
      const types = { asked: asked.type, error: 16, event: 15, other: 2 };
      const requestId = next.id < 0 ? asked.requestId : next.id;
      const head = { type: types[next.type], requestId, transactionId: 0 };
      server.send(encodeMessage(head, Buffer.from(next.payload)));
      if (next.type === 'event') send(asked);
    };
    server.listen({
      onBytes: (bytes) => parser.push(bytes, send),
      onClose: () => {},
    });
    const client = new XenstoreClient({ runtime, channel });
    const open = new Set(asks.map((_, index) => index));
    for (const [index, ask] of asks.entries()) {
      const settle = (error?: unknown) => {
        assert(error === undefined || error instanceof SysError, error as Error);
        open.delete(index);
      };
      askOf(client, ask)
        .then(() => settle(), settle)
        .catch((finding: unknown) => {
          failure ??= finding as Error;
        });
    }
    let failure: Error | undefined;
    for (let step = 0; step < STEPS_MAX && (await runtime.step()); step++);
    await client[Symbol.asyncDispose]();
    while (await runtime.step());
    if (failure) throw failure;
    assert.equal(open.size, 0, 'somebody waits for ever');
  },
});

function askOf(client: XenstoreClient, ask: Ask): Promise<unknown> {
  switch (ask) {
    case 'read':
      return client.read('/a');
    case 'list':
      return client.directory('/a');
    case 'write':
      return client.write('/a', 'value');
    case 'permissions':
      return client.getPermissions('/a');
    case 'watch':
      return client.watch('/a', () => {});
    case 'transaction':
      return client.transaction((access) => access.read('/a'));
    case 'remove':
      return client.remove('/a');
  }
}

const scribble = fc.oneof(
  fc.record({ at: fc.nat(2079), value: u8 }),
  fc.record({ at: fc.constantFrom(2048, 2052, 2056, 2060, 2064, 2068, 2072), word: u32 }),
);

/** Whatever one end writes over the ring page, the other end goes on or closes the channel with a reason. */
export const xenstoreRing = fuzzer({
  name: 'xenstore-ring',
  parsers: ['xen/xenstore-ring.ts'],
  runs: 150,
  input: fc.record({
    seed: fc.nat(1000),
    side: fc.constantFrom('server', 'guest' as const),
    actions: fc.array(
      fc.oneof(
        scribble,
        fc.record({ send: fc.oneof(fc.nat(1500), fc.constantFrom(600_000)) }),
        fc.record({ pause: fc.boolean() }),
      ),
      {
        maxLength: 30,
      },
    ),
  }),
  check: async ({ seed, side, actions }) => {
    const runtime = new VirtualRuntime(seed);
    const page = new Uint8Array(PAGE_SIZE);
    const other = side === 'server' ? 'guest' : 'server';
    const victim = new XenstoreRing({ runtime, page, side, notify: () => {} });
    const peer = new XenstoreRing({
      runtime,
      page,
      side: other,
      notify: () => runtime.defer(() => victim.onEvent()),
    });
    const ends: unknown[] = [];
    victim.listen({ onBytes: () => {}, onClose: (reason) => ends.push(reason) });
    peer.listen({ onBytes: () => {}, onClose: () => {} });
    for (const action of actions) {
      if ('word' in action) new DataView(page.buffer).setUint32(action.at, action.word, true);
      else if ('at' in action) page[action.at] = action.value;
      else if ('pause' in action) action.pause ? victim.pause() : victim.resume();
      else if (ends.length === 0) victim.send(new Uint8Array(action.send));
      victim.onEvent();
      await runtime.step();
    }
    victim.close();
    while (await runtime.step());
    assert(ends.length <= 1, 'it ends twice');
    assert(
      ends.every(
        (end) => end === undefined || end instanceof ProtocolViolation || end instanceof SysError,
      ),
    );
  },
});
