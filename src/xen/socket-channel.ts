// A byte channel over a stream socket: to a real xenstored, or from the tools that talk to ours.
//
// Invariants: bytes keep their order; at most MAX_PENDING_BYTES wait to be sent, then the channel breaks; the
// listener hears of the end once, and of nothing after it.

import { createConnection, type Socket } from 'node:net';
import { SysError } from '../runtime/errors.ts';
import type { ByteListener, PacedByteChannel } from './xenstore.ts';

/** What may wait for the kernel to take it. */
const MAX_PENDING_BYTES = 1024 * 1024;

class SocketChannel implements PacedByteChannel {
  readonly #socket: Socket;
  #listener: ByteListener | undefined;
  #failure: Error | undefined;
  #closed = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', (error) => {
      this.#failure ??= error;
    });
    socket.on('close', () => {
      this.#finish(this.#failure ?? socketError('ECONNRESET', 'the other end closed'));
    });
  }

  get pendingBytes(): number {
    return this.#socket.writableLength;
  }

  send(bytes: Uint8Array): void {
    if (this.#closed || this.#socket.destroyed) return;
    if (this.pendingBytes + bytes.length > MAX_PENDING_BYTES) {
      this.#failure ??= socketError('ENOBUFS', `more than ${MAX_PENDING_BYTES} bytes wait`);
      this.#socket.destroy();
      return;
    }
    this.#socket.write(new Uint8Array(bytes), () => {
      if (!this.#closed && this.pendingBytes === 0) this.#listener?.onDrain?.();
    });
  }

  listen(listener: ByteListener): void {
    this.#listener = listener;
    this.#socket.on('data', (bytes: Uint8Array) => {
      if (!this.#closed) listener.onBytes(bytes);
    });
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(): void {
    this.#finish(undefined);
    this.#socket.destroy();
  }

  #finish(reason: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener?.onClose(reason);
  }
}

function socketError(errnoName: string, context: string): SysError {
  return new SysError({ call: 'send', errnoName, context: `socket: ${context}` });
}

/** A channel over a connected socket, which it owns from now on. */
export function socketChannel(socket: Socket): PacedByteChannel {
  return new SocketChannel(socket);
}

/** Connects to a Unix socket. @throws SysError with connect's errno (ENOENT, ECONNREFUSED, EACCES) */
export function connectUnixSocket(path: string): Promise<PacedByteChannel> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    const onError = (error: NodeJS.ErrnoException) => {
      const errnoName = error.code ?? 'EIO';
      reject(new SysError({ call: 'connect', errnoName, context: `connecting to ${path}` }));
    };
    socket.once('error', onError);
    socket.once('connect', () => {
      socket.off('error', onError);
      resolve(socketChannel(socket));
    });
  });
}
