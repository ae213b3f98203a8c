// What every byte channel promises, whatever carries the bytes: the pipe, the ring page and the socket.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { bytePipe } from '../../src/xen/pipe.ts';
import { connectUnixSocket, socketChannel } from '../../src/xen/socket-channel.ts';
import type { PacedByteChannel } from '../../src/xen/xenstore.ts';
import { XenstoreRing } from '../../src/xen/xenstore-ring.ts';

const runtime = systemRuntime();

type Ends = readonly [PacedByteChannel, PacedByteChannel];

function ringPair(): Ends {
  const page = new Uint8Array(PAGE_SIZE);
  const guest: XenstoreRing = new XenstoreRing({
    runtime,
    page,
    side: 'guest',
    notify: () => runtime.defer(() => server.onEvent()),
  });
  const server: XenstoreRing = new XenstoreRing({
    runtime,
    page,
    side: 'server',
    notify: () => runtime.defer(() => guest.onEvent()),
  });
  return [guest, server];
}

async function socketPair(t: TestContext): Promise<Ends> {
  const directory = mkdtempSync(join(tmpdir(), 'channel-test-'));
  const listener = createServer().listen(join(directory, 's'));
  await once(listener, 'listening');
  const accepted = once(listener, 'connection') as Promise<[Socket]>;
  const client = await connectUnixSocket(join(directory, 's'));
  const server = socketChannel((await accepted)[0]);
  t.after(async () => {
    client.close();
    server.close();
    listener.close();
    await once(listener, 'close');
    rmSync(directory, { recursive: true });
  });
  return [client, server];
}

const KINDS: readonly (readonly [string, (t: TestContext) => Ends | Promise<Ends>])[] = [
  ['pipe', () => bytePipe(runtime)],
  ['ring', ringPair],
  ['socket', socketPair],
];

function collect(channel: PacedByteChannel) {
  const heard = { bytes: [] as number[], ends: [] as (Error | undefined)[], drained: 0 };
  channel.listen({
    onBytes: (bytes) => {
      for (const byte of bytes) heard.bytes.push(byte);
    },
    onClose: (reason) => heard.ends.push(reason),
    onDrain: () => heard.drained++,
  });
  return heard;
}

for (const [kind, makePair] of KINDS) {
  test(`${kind}: what was sent may be overwritten at once, Buffers too`, async (t) => {
    const [left, right] = await makePair(t);
    const heard = collect(right);
    for (const bytes of [Buffer.alloc(2000, 1), new Uint8Array(2000).fill(2)]) {
      left.send(bytes);
      bytes.fill(9);
    }
    await until(runtime, () => heard.bytes.length === 4000, { what: 'everything arrived' });
    assert.deepEqual([...new Set(heard.bytes)], [1, 2]);
  });

  test(`${kind}: a side that is paused gets nothing, the other hears when it has taken all`, async (t) => {
    const [left, right] = await makePair(t);
    const sender = collect(left);
    right.pause();
    const heard = collect(right);
    const total = 600_000;
    left.send(new Uint8Array(total));
    await until(runtime, () => left.pendingBytes > 0, { what: 'the channel is full' });
    for (let turn = 0; turn < 20; turn++) await new Promise<void>((go) => runtime.defer(go));
    assert.equal(heard.bytes.length, 0);
    assert.equal(sender.drained, 0);
    right.resume();
    await until(runtime, () => heard.bytes.length === total, { what: 'everything arrived' });
    await until(runtime, () => sender.drained > 0, { what: 'the sender heard' });
    assert.equal(left.pendingBytes, 0);
  });

  test(`${kind}: closing is told once on each side, with a reason on the other only`, async (t) => {
    const [server, guest] = [...(await makePair(t))].reverse() as [
      PacedByteChannel,
      PacedByteChannel,
    ];
    const own = collect(server);
    const other = collect(guest);
    server.close();
    server.close();
    server.send(new Uint8Array(3));
    await until(runtime, () => other.ends.length > 0, { what: 'the other side hears' });
    assert.deepEqual(own.ends, [undefined]);
    assert.equal(other.ends.length, 1);
    assert.ok(other.ends[0] instanceof Error);
    assert.deepEqual(other.bytes, []);
  });
}
