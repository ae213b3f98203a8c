// The machine's socket: processes of the same user come in by it and become domains, each for as long as its
// connection lasts. `enterMachine` is the other end.
//
// Invariants: a connection that does not say in time who it is, or breaks the rules, is closed; one that is
// refused is told why.

import { SysError } from '../../runtime/errors.ts';
import type { Logger, Timer } from '../../runtime/runtime.ts';
import type { PacedByteChannel } from '../../xen/xenstore.ts';
import { detailsOf } from '../remote/call-server.ts';
import { serveUnixSocket, type UnixServer } from '../unix-server.ts';
import type { XenHost } from '../xen-host.ts';
import { Entrance, type EntranceOptions } from './entrance.ts';
import { MessageStream } from './message-stream.ts';
import { checkEnter } from './messages.ts';

/** Connections without a domain, beside those that have one. */
const MAX_VISITORS = 16;
/** How long a connection may be without a domain. */
const ENTER_PATIENCE_MS = 10_000;

export interface GuestListenerOptions extends EntranceOptions {
  /** Of the socket; a stale one is replaced. */
  readonly path: string;
}

/**
 * Lets processes enter the machine until the result is disposed, which ends their domains; to be disposed before
 * the host.
 * @throws SysError EADDRINUSE when somebody serves that socket, EEXIST when the file is no socket
 */
export async function listenForGuests(options: GuestListenerOptions): Promise<GuestListener> {
  const { path, host } = options;
  const entrance = new Entrance(options);
  const server = await serveUnixSocket({
    path,
    what: 'the machine',
    maxConnections: entrance.maxGuests + MAX_VISITORS,
    accept: (channel) => {
      const tooLate = host.runtime.after(ENTER_PATIENCE_MS, () => channel.close());
      receive(channel, { host, entrance, tooLate });
    },
  });
  return new GuestListener(server, entrance);
}

export class GuestListener implements AsyncDisposable {
  readonly path: string;
  readonly #server: UnixServer;
  readonly #entrance: Entrance;

  constructor(server: UnixServer, entrance: Entrance) {
    this.path = server.path;
    this.#server = server;
    this.#entrance = entrance;
  }

  /** Ends the processes' domains, gives the processes a moment to let go, and removes the socket. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#entrance.close();
    await this.#server[Symbol.asyncDispose]();
  }
}

/** Takes a new connection to the entrance, at its first message. */
function receive(
  channel: PacedByteChannel,
  { host, entrance, tooLate }: { host: XenHost; entrance: Entrance; tooLate: Timer },
): void {
  const stream = new MessageStream(channel, {
    onMessage: (message) => {
      const wish = checkEnter(message);
      // What comes next is for the domain to take.
      stream.pause();
      entrance.enter(wish, stream).then(
        () => tooLate.cancel(),
        (error: unknown) => refuse(stream, error, host.runtime.log),
      );
    },
    onClose: () => tooLate.cancel(),
  });
}

/** The process closes the connection when it has read this, or time ends it. */
function refuse(stream: MessageStream, error: unknown, log: Logger): void {
  if (!(error instanceof SysError)) {
    log.error({ err: error }, 'a process could not enter');
    stream.close();
    return;
  }
  stream.send({ refused: detailsOf(error) });
  stream.listen({ onMessage: () => stream.close(), onClose: () => {} });
  stream.resume();
}
