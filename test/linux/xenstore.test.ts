// The ways to xenstored: a real Unix socket with a peer that we play byte by byte, and the message
// framing of the device. The client's own tests are in test/xen; the real device is the lab's.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { connectXenstoreSocket, openXenstoreChannel } from '../../src/linux/xenstore.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';

const runtime = systemRuntime();

/** A listening Unix socket in a folder of its own. */
class Listener implements AsyncDisposable {
  readonly #folder = mkdtempSync(`${tmpdir()}/xen-zcopy-socket-`);
  readonly path = `${this.#folder}/socket`;
  readonly #server: Server = createServer();

  async listen(): Promise<this> {
    this.#server.listen(this.path);
    await once(this.#server, 'listening');
    return this;
  }

  async accept(): Promise<Socket> {
    const [socket] = await once(this.#server, 'connection');
    return socket as Socket;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    rmSync(this.#folder, { recursive: true });
  }
}

/** What a channel said. */
function recorder() {
  const heard = { bytes: Buffer.alloc(0), ends: [] as (Error | undefined)[] };
  const listener = {
    onBytes: (bytes: Uint8Array) => {
      heard.bytes = Buffer.concat([heard.bytes, bytes]);
    },
    onClose: (reason?: Error) => {
      heard.ends.push(reason);
    },
  };
  return { heard, listener };
}

test('bytes go both ways over the socket, and may be reused once sent', async () => {
  await using server = await new Listener().listen();
  const accepted = server.accept();
  const channel = await connectXenstoreSocket(server.path);
  const peer = await accepted;
  const { heard, listener } = recorder();
  peer.write('early');
  channel.listen(listener);
  const bytes = Buffer.from('hello');
  channel.send(bytes);
  bytes.fill(0);
  const [got] = await once(peer, 'data');
  assert.equal(String(got), 'hello');
  await until(runtime, () => heard.bytes.toString() === 'early', { what: 'what the peer sent' });
  channel.close();
  channel.close();
  await until(runtime, () => heard.ends.length > 0, { what: 'the end' });
  assert.deepEqual(heard.ends, [undefined]);
  channel.send(bytes);
});

test('a xenstored that goes away ends the channel with a reason, once', async () => {
  await using server = await new Listener().listen();
  const accepted = server.accept();
  const channel = await connectXenstoreSocket(server.path);
  const { heard, listener } = recorder();
  channel.listen(listener);
  (await accepted).destroy();
  await until(runtime, () => heard.ends.length > 0, { what: 'the end' });
  channel.close();
  assert.equal(heard.ends.length, 1);
  const [reason] = heard.ends;
  assert(reason instanceof SysError && /xenstored ended the connection/.test(reason.message));
});

test('XENSTORED_PATH is the only way tried when it is set, and the error names it', async () => {
  await using server = await new Listener().listen();
  const accepted = server.accept();
  const channel = await openXenstoreChannel({ XENSTORED_PATH: server.path });
  (await accepted).destroy();
  channel.close();
  const absent = `${server.path}-absent`;
  await assert.rejects(openXenstoreChannel({ XENSTORED_PATH: absent }), (error) => {
    assert(error instanceof SysError && error.errnoName === 'ENOENT');
    assert(error.message.includes(`no way to xenstored (${absent}: ENOENT)`), error.message);
    return true;
  });
});
