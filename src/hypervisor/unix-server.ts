// A Unix socket that this process serves, to programs of the same user: xenstore's, and the machine's.
//
// Invariants: nobody but the owner can connect at any moment (the socket is made in a private directory and moved
// into place with mode 0600); a socket that somebody serves is never taken over; the file is removed at
// the end, unless somebody else has replaced it.

import { once } from 'node:events';
import { chmod, lstat, mkdtemp, rename, rm, unlink } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { SysError } from '../runtime/errors.ts';
import { connectUnixSocket, socketChannel } from '../xen/socket-channel.ts';
import type { PacedByteChannel } from '../xen/xenstore.ts';

/** Longest path of a Unix socket: sun_path without its NUL. */
const MAX_SOCKET_PATH_BYTES = 107;
const SOCKET_MODE = 0o600;

type Served = Pick<UnixServerOptions, 'path' | 'what'>;

export interface UnixServerOptions {
  readonly path: string;
  /** What is served, for the message of an error. */
  readonly what: string;
  /** Connections at a time; further ones are refused at once. */
  readonly maxConnections: number;
  /** Takes a new connection over. */
  readonly accept: (channel: PacedByteChannel) => void;
}

/**
 * Serves a Unix socket until the result is disposed.
 * @throws SysError EADDRINUSE when somebody serves that socket, EEXIST when the file is no socket
 */
export async function serveUnixSocket(options: UnixServerOptions): Promise<UnixServer> {
  const { path, maxConnections, accept } = options;
  await checkReplaceable(options);
  const listener = createServer((socket) => accept(socketChannel(socket)));
  listener.maxConnections = maxConnections;
  try {
    await bindAt(listener, options);
    return new UnixServer({ listener, path, inode: (await lstat(path)).ino });
  } catch (error) {
    listener.close();
    throw error;
  }
}

export class UnixServer implements AsyncDisposable {
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

/** @throws SysError when the path must not be taken: served by somebody, or not a socket at all */
async function checkReplaceable(served: Served): Promise<void> {
  const { path } = served;
  const present = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw bindError(served, error.code ?? 'EIO');
  });
  if (!present) return;
  if (!present.isSocket()) {
    throw bindError(served, 'EEXIST', 'there is a file of that name that is not a socket');
  }
  const answers = await connectUnixSocket(path).then(
    (channel) => {
      channel.close();
      return true;
    },
    () => false,
  );
  if (answers)
    throw bindError(served, 'EADDRINUSE', 'another process serves it; choose another path');
}

/** Binds in a private directory beside `path` and moves the socket there, replacing a stale one. */
async function bindAt(listener: Server, served: Served): Promise<void> {
  const { path } = served;
  const privateDirectory = await mkdtemp(join(dirname(path), '.xs-')).catch(
    (error: NodeJS.ErrnoException) => {
      throw bindError(served, error.code ?? 'EIO', 'its directory must exist and be writable');
    },
  );
  const birthplace = join(privateDirectory, 's');
  try {
    for (const name of [birthplace, path]) {
      if (Buffer.byteLength(name) <= MAX_SOCKET_PATH_BYTES) continue;
      throw bindError(served, 'ENAMETOOLONG', 'choose a shorter path');
    }
    listener.listen(birthplace);
    await once(listener, 'listening');
    await chmod(birthplace, SOCKET_MODE);
    await rename(birthplace, path);
  } finally {
    await rm(privateDirectory, { recursive: true, force: true });
  }
}

function bindError({ path, what }: Served, errnoName: string, remedy?: string): SysError {
  const details = { call: 'bind', errnoName, context: `serving ${what} on ${path}` };
  return new SysError(remedy === undefined ? details : { ...details, remedy });
}
