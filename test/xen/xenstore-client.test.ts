import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XS_ERROR, XS_WATCH, XS_WATCH_EVENT } from '../../src/abi/xs-wire.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { bytePipe } from '../../src/xen/pipe.ts';
import { XenstoreClient } from '../../src/xen/xenstore-client.ts';
import {
  decodeStrings,
  encodeMessage,
  MessageParser,
  type XenstoreMessage,
} from '../../src/xen/xenstore-wire.ts';
import { World } from '../hypervisor/xenstored/world.ts';

/** A check for `assert.rejects`: a SysError with that errno. */
function errno(errnoName: string) {
  return (error: unknown) => error instanceof SysError && error.errnoName === errnoName;
}

test('values, directories and removal', async () => {
  const world = new World(1);
  const store = world.client(0);
  await world.run(store.write('/a/b', 'grüße\0und mehr'));
  assert.equal(await world.run(store.read('/a/b')), 'grüße\0und mehr');
  assert.equal(await world.run(store.read('/a')), '');
  assert.equal(await world.run(store.read('/nothing/here')), undefined);
  await world.run(store.mkdir('/a/c'));
  assert.deepEqual(await world.run(store.directory('/a')), ['b', 'c']);
  assert.deepEqual(await world.run(store.directory('/a/c')), []);
  assert.equal(await world.run(store.directory('/x')), undefined);
  await world.run(store.remove('/a'));
  await world.run(store.remove('/a/b/c'));
  assert.equal(await world.run(store.directory('/a')), undefined);
});

test('a watch hears of its registration, of changes below, and nothing after it is disposed', async () => {
  const world = new World(2);
  const store = world.client(0);
  const other = world.client(0);
  const heard: string[] = [];
  const watch = await world.run(store.watch('/dev', (path) => heard.push(path)));
  await world.idle();
  assert.deepEqual(heard.splice(0), ['/dev']);
  await world.run(other.write('/dev/0/state', '1'));
  await world.run(other.write('/elsewhere', '1'));
  await world.idle();
  assert.deepEqual(heard.splice(0), ['/dev/0/state']);
  await world.run(watch[Symbol.asyncDispose]());
  await world.run(watch[Symbol.asyncDispose]());
  await world.run(other.write('/dev/0/state', '2'));
  await world.idle();
  assert.deepEqual(heard, []);
});

test('a transaction is invisible until it commits, and aborted when its body throws', async () => {
  const world = new World(3);
  const store = world.client(0);
  const other = world.client(0);
  const result = await world.run(
    store.transaction(async (access) => {
      await access.write('/t', 'inside');
      assert.equal(await access.read('/t'), 'inside');
      assert.equal(await other.read('/t'), undefined);
      return 7;
    }),
  );
  assert.equal(result, 7);
  assert.equal(await world.run(other.read('/t')), 'inside');
  const failing = store.transaction(async (access) => {
    await access.write('/t', 'never');
    throw new Error('changed my mind');
  });
  await assert.rejects(world.run(failing), /changed my mind/);
  assert.equal(await world.run(other.read('/t')), 'inside');
});

test('errors say the call, the path and the errno', async () => {
  const world = new World(4);
  const guest = world.client(3);
  await assert.rejects(world.run(guest.write('/tool/x', '1')), (error) => {
    assert(error instanceof SysError);
    assert.equal(error.call, 'XS_WRITE');
    assert.equal(error.errnoName, 'EACCES');
    assert.match(error.message, /writing \/tool\/x/);
    return true;
  });
  await assert.rejects(world.run(world.client(0).write('/x', 'v'.repeat(5000))), errno('E2BIG'));
});

test('when the connection is over everything outstanding rejects and `closed` says why', async () => {
  const world = new World(5);
  const store = world.client(4);
  const reading = store.read('/local');
  world.server.releaseDomain(4 as never);
  await assert.rejects(world.run(reading), errno('ECONNRESET'));
  assert.match((await world.run(store.closed))?.message ?? '', /the other end closed/);
  await assert.rejects(store.read('/local'), errno('ECONNRESET'));

  const own = world.client(0);
  await own[Symbol.asyncDispose]();
  assert.equal(await own.closed, undefined);
});

/** A client whose server is the test itself. */
function scripted(seed: number) {
  const runtime = new VirtualRuntime(seed);
  const [channel, far] = bytePipe(runtime);
  const client = new XenstoreClient({ runtime, channel });
  const requests: XenstoreMessage[] = [];
  const parser = new MessageParser();
  let over = false;
  far.listen({
    onBytes: (bytes) => parser.push(bytes, (message) => requests.push(message)),
    onClose: () => {
      over = true;
    },
  });
  const idle = async () => {
    while (await runtime.step());
  };
  const reply = (to: XenstoreMessage, text: string, type = to.type) =>
    far.send(encodeMessage({ ...to, type }, text));
  return { client, far, requests, idle, reply, isOver: () => over };
}

test('a flood of watch events is merged and bounded, and the watched path stands for what is dropped (XSA-349)', async () => {
  const { client, far, requests, idle, reply } = scripted(6);
  const heard: string[] = [];
  const watching = client.watch('/w', (path) => heard.push(path));
  await idle();
  reply(requests[0]!, 'OK\0');
  await idle();
  await watching;
  const token = decodeStrings(requests[0]!.payload)[1]!;
  const flood = (names: readonly string[]) => {
    const head = { type: XS_WATCH_EVENT, requestId: 0, transactionId: 0 };
    const messages = names.map((name) => encodeMessage(head, `${name}\0${token}\0`));
    far.send(Buffer.concat(messages));
  };
  flood(Array.from({ length: 1000 }, (_, i) => `/w/${i % 3}`));
  await idle();
  assert.deepEqual(heard.splice(0), ['/w/0', '/w/1', '/w/2']);
  flood(Array.from({ length: 1000 }, (_, i) => `/w/${i}`));
  await idle();
  assert.ok(heard.length <= 64, `${heard.length} events`);
  assert.equal(heard[0], '/w');
  assert.equal(heard.at(-1), '/w/999');
});

test('a watch that xenstored does not take out is heard no more, and nobody has to do anything about it (seed 10)', async () => {
  const { client, far, requests, idle, reply } = scripted(8);
  const heard: string[] = [];
  const watching = client.watch('/w', (path) => heard.push(path));
  await idle();
  reply(requests[0]!, 'OK\0');
  await idle();
  const watch = await watching;
  const token = decodeStrings(requests[0]!.payload)[1]!;
  const disposed = watch[Symbol.asyncDispose]();
  await idle();
  reply(requests[1]!, 'ENOMEM\0', XS_ERROR);
  await idle();
  await disposed;
  const head = { type: XS_WATCH_EVENT, requestId: 0, transactionId: 0 };
  far.send(encodeMessage(head, `/w\0${token}\0`));
  await idle();
  assert.deepEqual(heard, []);
});

test('at most 16 requests are with the server at a time, the rest follow in order', async () => {
  const { client, requests, idle, reply } = scripted(7);
  const values = Array.from({ length: 50 }, (_, i) => client.read(`/${i}`));
  await idle();
  assert.equal(requests.length, 16);
  for (let at = 0; at < 50; at++) {
    reply(requests[at]!, `value of ${decodeStrings(requests[at]!.payload)[0]}`);
    await idle();
  }
  assert.deepEqual(
    await Promise.all(values),
    Array.from({ length: 50 }, (_, i) => `value of /${i}`),
  );
});

test('replies may come in any order', async () => {
  const { client, requests, idle, reply } = scripted(8);
  const both = Promise.all([client.read('/first'), client.read('/second')]);
  await idle();
  reply(requests[1]!, '2');
  reply(requests[0]!, '1');
  await idle();
  assert.deepEqual(await both, ['1', '2']);
});

test('a server that answers what was not asked, or in the wrong type, loses the connection', async () => {
  for (const wrong of ['number', 'type', 'length'] as const) {
    const { client, far, requests, idle, reply, isOver } = scripted(9);
    const reading = client.read('/x');
    reading.catch(() => {});
    await idle();
    const [request] = requests;
    if (wrong === 'number') reply({ ...request!, requestId: 77 }, 'x');
    else if (wrong === 'type') reply(request!, 'x', XS_WATCH);
    else far.send(new Uint8Array(16).fill(0xff));
    await idle();
    await assert.rejects(reading, errno('ECONNRESET'));
    assert.match(String(await client.closed), /ProtocolViolation/, wrong);
    assert.equal(isOver(), true);
  }
});

test('a transaction whose number is none is an error that says so, and the client goes on', async () => {
  for (const none of [':', '', 'abc\0', '0\0', '-1\0', '4294967296\0', '99999999999\0', '5']) {
    const { client, requests, idle, reply } = scripted(11);
    const done = client.transaction((access) => access.read('/x'));
    done.catch(() => {});
    await idle();
    reply(requests.shift()!, none);
    await idle();
    await assert.rejects(done, errno('EINVAL'), none);
    const reading = client.read('/x');
    await idle();
    reply(requests.shift()!, 'value');
    await idle();
    assert.equal(await reading, 'value');
  }
});

test('a long directory that changes while it is listed is listed again', async () => {
  const { client, requests, idle, reply } = scripted(10);
  const listing = client.directory('/long');
  const expectOffset = async (offset: string) => {
    await idle();
    const request = requests.shift()!;
    assert.deepEqual(decodeStrings(request.payload), ['/long', offset]);
    return request;
  };
  await idle();
  reply(requests.shift()!, 'E2BIG\0', XS_ERROR);
  reply(await expectOffset('0'), '41\0one\0two\0');
  reply(await expectOffset('8'), '42\0three\0\0');
  reply(await expectOffset('0'), '42\0one\0');
  reply(await expectOffset('4'), '42\0three\0\0');
  await idle();
  assert.deepEqual(await listing, ['one', 'three']);
});

test('the use of a transaction after its end is a bug that is seen at once', async () => {
  const world = new World(11);
  const store = world.client(0);
  const kept = await world.run(store.transaction(async (access) => access));
  await assert.rejects(world.run(kept.read('/x')), /a transaction that is over/);
});
