// The way to a real host's xenstored: its Unix socket where it runs in this domain, else the kernel's
// door to it, /dev/xen/xenbus, which takes and gives the same messages (xen/io/xs_wire.h).

import assert from 'node:assert/strict';
import { sockmsg } from '../abi/xs-wire.ts';
import { FdWatcher } from '../posix/fd-watcher.ts';
import { SysError } from '../runtime/errors.ts';
import { connectUnixSocket } from '../xen/socket-channel.ts';
import type { ByteChannel, ByteListener } from '../xen/xenstore.ts';
import { type DeviceFile, openXenDevice, WITHOUT_XEN, XENBUS } from './device.ts';

/** Where xenstored listens, as Debian and as older systems have it. */
const SOCKET_PATHS = ['/run/xenstored/socket', '/var/run/xenstored/socket'];
/** What one wake-up of the device takes at most; the rest wakes us again. */
const READ_BYTES = 64 * 1024;

/** The kernel takes one message per write(2) and gives what there is, cut anywhere. */
export class XenbusDeviceChannel implements ByteChannel {
  readonly #device: DeviceFile;
  readonly #buffer = new Uint8Array(READ_BYTES);
  #watcher: FdWatcher | undefined;
  #listener: ByteListener | undefined;
  #closed = false;

  /** Owns `device`, an open /dev/xen/xenbus. */
  constructor(device: DeviceFile) {
    this.#device = device;
  }

  send(message: Uint8Array): void {
    if (this.#closed) return;
    const view = new DataView(message.buffer, message.byteOffset, message.length);
    const length = sockmsg.size + sockmsg.fields.len.get(view, 0);
    assert.equal(message.length, length, 'the device takes exactly one message at a time');
    try {
      this.#device.write(message, { context: 'sending a message to xenstored' });
    } catch (error) {
      this.#end(error);
    }
  }

  listen(listener: ByteListener): void {
    assert(this.#listener === undefined, 'a channel has one listener');
    this.#listener = listener;
    this.#watcher = new FdWatcher(this.#device.fd, () => this.#receive(listener));
  }

  close(): void {
    this.#end(undefined);
  }

  #receive(listener: ByteListener): void {
    try {
      const count = this.#device.read(this.#buffer, { context: 'reading from xenstored' });
      if (count !== undefined) listener.onBytes(this.#buffer.slice(0, count));
    } catch (error) {
      this.#end(error);
    }
  }

  #end(reason: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher?.[Symbol.dispose]();
    this.#device[Symbol.dispose]();
    this.#listener?.onClose(reason instanceof Error ? reason : undefined);
  }
}

interface Way {
  readonly path: string;
  readonly open: () => Promise<ByteChannel>;
}

/**
 * The first way to xenstored that works: the socket named by XENSTORED_PATH alone when it is set,
 * else the usual sockets, else the device. @throws SysError that says what was tried
 */
export async function openXenstoreChannel(env: NodeJS.ProcessEnv): Promise<ByteChannel> {
  const named = env.XENSTORED_PATH;
  const ways: Way[] = (named === undefined ? SOCKET_PATHS : [named]).map((path) => ({
    path,
    open: () => connectUnixSocket(path),
  }));
  if (named === undefined) {
    const open = async () => new XenbusDeviceChannel(openXenDevice(XENBUS));
    ways.push({ path: XENBUS.path, open });
  }
  const refusals = new Map<string, string>();
  for (const { path, open } of ways) {
    try {
      return await open();
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      refusals.set(path, error.errnoName);
    }
  }
  throw noWay(refusals);
}

/** The error for paths that were all refused, each with its errno name. */
function noWay(refusals: ReadonlyMap<string, string>): SysError {
  const tried = [...refusals].map(([path, errnoName]) => `${path}: ${errnoName}`).join(', ');
  const telling = [...refusals.values()].find((errnoName) => errnoName !== 'ENOENT');
  return new SysError({
    call: 'connect',
    errnoName: telling ?? 'ENOENT',
    context: `no way to xenstored (${tried})`,
    remedy: `start xenstored, or name its socket in XENSTORED_PATH; ${WITHOUT_XEN}`,
  });
}
