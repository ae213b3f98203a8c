// The store on a Unix socket, for Debian's xenstore-utils and whatever else links libxenstore: they find it by the
// environment variable XENSTORED_PATH. Whoever may connect is the control domain, as with the real xenstored.
//
// Invariants: nobody but the owner can connect at any moment (the socket is made in a private directory and moved
// into place with mode 0600); a socket that somebody serves is never taken over; the file is removed at
// the end, unless somebody else has replaced it.

import { once } from 'node:events';
import { chmod, lstat, mkdtemp, rename, rm, unlink } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { SysError } from '../../runtime/errors.ts';
import { DOM0 } from '../../xen/ids.ts';
import { connectUnixSocket, socketChannel } from '../../xen/socket-channel.ts';
import type { Xenstored } from './server.ts';

/** Connections at a time; further ones are refused at once. */
const MAX_CONNECTIONS = 256;
/** Longest path of a Unix socket: sun_path without its NUL. */
const MAX_SOCKET_PATH_BYTES = 107;
const SOCKET_MODE = 0o600;

export interface UnixListenerOptions {
  readonly server: Xenstored;
  readonly path: string;
}

/**
 * Serves the store on a Unix socket until the result is disposed.
 * @throws SysError EADDRINUSE when somebody serves that socket, EEXIST when the file is no socket
 */
export async function listenOnUnixSocket(options: UnixListenerOptions): Promise<UnixListener> {
  const { server, path } = options;
  await checkReplaceable(path);
  const listener = createServer((socket) => accept(server, socket));
  listener.maxConnections = MAX_CONNECTIONS;
  try {
    await bindAt(listener, path);
    return new UnixListener({ listener, path, inode: (await lstat(path)).ino });
  } catch (error) {
    listener.close();
    throw error;
  }
}

export class UnixListener implements AsyncDisposable {
  readonly path: string;
  readonly #listener: Server;
  readonly #inode: number;
  readonly #sockets = new Set<Socket>();

  constructor({ listener, path, inode }: { listener: Server; path: string; inode: number }) {
    this.path = path;
    this.#listener = listener;
    this.#inode = inode;
    listener.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  /** Removes the file and ends every connection that came through it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#listener.listening) return;
    const closed = once(this.#listener, 'close');
    this.#listener.close();
    for (const socket of this.#sockets) socket.destroy();
    const current = await lstat(this.path).catch(() => undefined);
    if (current?.ino === this.#inode) await unlink(this.path);
    await closed;
  }
}

function accept(server: Xenstored, socket: Socket): void {
  server.accept({ channel: socketChannel(socket), domid: DOM0 });
}

/** @throws SysError when the path must not be taken: served by somebody, or not a socket at all */
async function checkReplaceable(path: string): Promise<void> {
  const present = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw bindError(path, error.code ?? 'EIO');
  });
  if (!present) return;
  if (!present.isSocket()) {
    throw bindError(path, 'EEXIST', 'there is a file of that name that is not a socket');
  }
  const answers = await connectUnixSocket(path).then(
    (channel) => {
      channel.close();
      return true;
    },
    () => false,
  );
  if (answers)
    throw bindError(path, 'EADDRINUSE', 'another process serves it; choose another path');
}

/** Binds in a private directory beside `path` and moves the socket there, replacing a stale one. */
async function bindAt(listener: Server, path: string): Promise<void> {
  const privateDirectory = await mkdtemp(join(dirname(path), '.xs-')).catch(
    (error: NodeJS.ErrnoException) => {
      throw bindError(path, error.code ?? 'EIO', 'its directory must exist and be writable');
    },
  );
  const birthplace = join(privateDirectory, 's');
  try {
    for (const name of [birthplace, path]) {
      if (Buffer.byteLength(name) <= MAX_SOCKET_PATH_BYTES) continue;
      throw bindError(path, 'ENAMETOOLONG', 'choose a shorter path');
    }
    listener.listen(birthplace);
    await once(listener, 'listening');
    await chmod(birthplace, SOCKET_MODE);
    await rename(birthplace, path);
  } finally {
    await rm(privateDirectory, { recursive: true, force: true });
  }
}

function bindError(path: string, errnoName: string, remedy?: string): SysError {
  const details = { call: 'bind', errnoName, context: `serving xenstore on ${path}` };
  return new SysError(remedy === undefined ? details : { ...details, remedy });
}
