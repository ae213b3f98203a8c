// The ways to xenstored, against the xenstored of this process: by its Unix socket, and by a descriptor
// that takes and gives messages as /dev/xen/xenbus does (a real socket pair; the lab has the device).

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import koffi from 'koffi';
import { XS_READ } from '../../src/abi/xs-wire.ts';
import { Xenstored } from '../../src/hypervisor/xenstored/server.ts';
import { listenOnUnixSocket } from '../../src/hypervisor/xenstored/unix-listener.ts';
import type { DeviceFile } from '../../src/linux/device.ts';
import { openLinuxDomain } from '../../src/linux/domain.ts';
import { openXenstoreChannel, XenbusDeviceChannel } from '../../src/linux/xenstore.ts';
import { FdWatcher } from '../../src/posix/fd-watcher.ts';
import { type CallContext, close, read, write } from '../../src/posix/libc.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { socketChannel } from '../../src/xen/socket-channel.ts';
import { XenstoreClient } from '../../src/xen/xenstore-client.ts';
import { encodeMessage } from '../../src/xen/xenstore-wire.ts';

const runtime = systemRuntime();
const socketpair = koffi.load('libc.so.6').func('int socketpair(int, int, int, void *)');
const AF_UNIX = 1;
const SOCK_STREAM_NONBLOCK = 1 | 0o4000;

/** A xenstored on a socket of its own, gone when the test is over. */
async function serve(t: TestContext): Promise<{ server: Xenstored; path: string }> {
  const folder = mkdtempSync(join(tmpdir(), 'xen-zcopy-linux-'));
  const path = join(folder, 'socket');
  const server = new Xenstored({ runtime });
  const listener = await listenOnUnixSocket({ server, path });
  t.after(async () => {
    await listener[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });
  return { server, path };
}

/** A descriptor with the manners of /dev/xen/xenbus: a read does not wait, a write is one message. */
class SocketDevice implements DeviceFile {
  readonly fd: number;
  closed = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  ioctl(): number {
    assert.fail('the xenbus device has no ioctls');
  }

  read(into: Uint8Array, context: CallContext): number | undefined {
    return read(this.fd, into, context);
  }

  write(bytes: Uint8Array, context: CallContext): void {
    assert.equal(write(this.fd, bytes, context), bytes.length);
  }

  [Symbol.dispose](): void {
    this.closed = true;
    close(this.fd, { context: 'closing the test device' });
  }
}

/** The device, and the xenstored behind it. */
function deviceTo(server: Xenstored): SocketDevice {
  const fds = new Int32Array(2);
  assert.equal(socketpair(AF_UNIX, SOCK_STREAM_NONBLOCK, 0, fds), 0);
  const channel = socketChannel(new Socket({ fd: fds[1]!, readable: true, writable: true }));
  server.accept({ channel, domid: DOM0 });
  return new SocketDevice(fds[0]!);
}

/** Reads, writes, a watch and a transaction: the same for every way. */
async function exercise(store: XenstoreClient): Promise<void> {
  const changes: string[] = [];
  const watch = await store.watch('/test', (path) => changes.push(path));
  await store.write('/test/a', '1');
  await store.transaction(async (access) => {
    await access.write('/test/b', `${await access.read('/test/a')}2`);
  });
  assert.equal(await store.read('/test/b'), '12');
  assert.deepEqual(await store.directory('/test'), ['a', 'b']);
  const long = 'x'.repeat(2000);
  await Promise.all(
    Array.from({ length: 15 }, async (_, i) => {
      await store.write(`/test/long/${i}`, long);
      assert.equal(await store.read(`/test/long/${i}`), long);
    }),
  );
  await until(runtime, () => changes.includes('/test/b'), { what: 'the watch event' });
  await watch[Symbol.asyncDispose]();
}

test('a client works over the socket that XENSTORED_PATH names', async (t) => {
  const { server, path } = await serve(t);
  const channel = await openXenstoreChannel({ XENSTORED_PATH: path });
  const store = new XenstoreClient({ runtime, channel });
  await exercise(store);
  await store[Symbol.asyncDispose]();
  await until(runtime, () => server.connections === 0, { what: 'the connection is gone' });
});

test('a client works over the device, and closing it leaves no watcher', async () => {
  const server = new Xenstored({ runtime });
  const device = deviceTo(server);
  const store = new XenstoreClient({ runtime, channel: new XenbusDeviceChannel(device) });
  await exercise(store);
  await store[Symbol.asyncDispose]();
  assert.equal(device.closed, true);
  assert.equal(await store.closed, undefined);
  await until(runtime, () => server.connections === 0 && FdWatcher.handles === 0, {
    what: 'both ends are gone',
  });
});

test('a device that fails ends the channel once, with the reason', async () => {
  const device = deviceTo(new Xenstored({ runtime }));
  const channel = new XenbusDeviceChannel(device);
  const ends: (Error | undefined)[] = [];
  channel.listen({ onBytes: () => undefined, onClose: (reason) => ends.push(reason) });
  device.read = (_into, { context }) => {
    throw new SysError({ call: 'read', errnoName: 'EIO', context });
  };
  channel.send(encodeMessage({ type: XS_READ, requestId: 1, transactionId: 0 }, '/\0'));
  await until(runtime, () => ends.length > 0, { what: 'the end' });
  channel.close();
  channel.send(encodeMessage({ type: XS_READ, requestId: 2, transactionId: 0 }, '/\0'));
  assert.equal(ends.length, 1);
  assert(ends[0] instanceof SysError && ends[0].errnoName === 'EIO');
  assert.equal(device.closed, true);
});

test('the device is given exactly one message at a time', () => {
  const device = deviceTo(new Xenstored({ runtime }));
  const channel = new XenbusDeviceChannel(device);
  const message = encodeMessage({ type: XS_READ, requestId: 1, transactionId: 0 }, '/\0');
  assert.throws(() => channel.send(Buffer.concat([message, message])), /exactly one message/);
  assert.throws(() => channel.send(message.subarray(0, 17)), /exactly one message/);
  channel.close();
});

test('a socket that XENSTORED_PATH names and nobody serves is the error, by name', async (t) => {
  const { path } = await serve(t);
  const absent = `${path}-absent`;
  await assert.rejects(openXenstoreChannel({ XENSTORED_PATH: absent }), (error) => {
    assert(error instanceof SysError && error.errnoName === 'ENOENT');
    assert(error.message.includes(`no way to xenstored (${absent}: ENOENT)`), error.message);
    return true;
  });
});

test('a domain that cannot be opened as a whole leaves nothing open', async (t) => {
  const { server, path } = await serve(t);
  // Without Xen there are no devices; with Xen this store does not know our domid.
  await assert.rejects(openLinuxDomain({ runtime, env: { XENSTORED_PATH: path } }), (error) => {
    assert(error instanceof SysError);
    return /modprobe xen-gntdev|XS_READ domid/.test(error.message);
  });
  await until(runtime, () => server.connections === 0 && FdWatcher.handles === 0, {
    what: 'everything is closed',
  });
});
