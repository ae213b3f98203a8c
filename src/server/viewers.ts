// All viewers: takes WebSocket connections, tells them the status as it changes, and finds the dead ones.
//
// Invariants: a bounded number of connections; the status is made once for all viewers, and no timer runs
// while there are none.

import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import type { DaemonStatus } from '../daemon/status.ts';
import type { DaemonView } from '../daemon/view.ts';
import type { ServerMessage } from '../outputs/browser/protocol.ts';
import { type Runtime, type Timer, until } from '../runtime/runtime.ts';
import { HttpError } from './http-error.ts';
import { ViewerConnection } from './viewer-connection.ts';

/** Viewers at a time; each may hold one frame per screen it watches. */
export const MAX_VIEWERS = 32;

/** Largest message of a viewer: a full array of input events. */
const MAX_MESSAGE_BYTES = 128 * 1024;

/** How often viewers are told numbers that have no event (rates, counts). */
const STATUS_INTERVAL_MS = 500;

/** Changes within this time are told together. */
const CHANGE_DELAY_MS = 20;

/** Every so many statuses the connections are checked: 5 s. */
const STATUSES_PER_PING = 10;

/** How long the other ends have to say goodbye. */
const CLOSE_TIMEOUT_MS = 1000;

export class Viewers {
  readonly #runtime: Runtime;
  readonly #view: DaemonView;
  readonly #sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE_BYTES,
  });
  readonly #connections = new Set<ViewerConnection>();
  readonly #subscription: Disposable;
  #interval: Timer | undefined;
  #change: Timer | undefined;
  #statuses = 0;
  #closing = false;

  constructor(runtime: Runtime, view: DaemonView) {
    this.#runtime = runtime;
    this.#view = view;
    this.#subscription = view.onChange(() => this.#onChange());
  }

  get count(): number {
    return this.#connections.size;
  }

  /** Makes a checked upgrade request a viewer. @throws HttpError 503 when there are too many */
  accept(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    if (this.#closing) throw new HttpError(503, 'the server is stopping');
    if (this.count >= MAX_VIEWERS) throw new HttpError(503, `there are ${MAX_VIEWERS} viewers`);
    const local = isLoopback(request.socket.remoteAddress);
    this.#sockets.handleUpgrade(request, socket, head, (accepted) => {
      const connection = new ViewerConnection(accepted, {
        runtime: this.#runtime,
        view: this.#view,
        local,
      });
      this.#connections.add(connection);
      accepted.on('close', () => this.#remove(connection));
      connection.sendStatus(this.#statusText());
      this.#interval ??= this.#nextInterval();
    });
  }

  /** Says goodbye to all, and cuts off those that do not answer in time. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#subscription[Symbol.dispose]();
    this.#change?.cancel();
    for (const connection of this.#connections) connection.close();
    const gone = until(this.#runtime, () => this.count === 0, {
      what: 'the viewers to say goodbye',
      timeoutMs: CLOSE_TIMEOUT_MS,
    });
    await gone.catch(() => {
      for (const connection of this.#connections) connection.terminate();
    });
    this.#interval?.cancel();
  }

  #remove(connection: ViewerConnection): void {
    this.#connections.delete(connection);
    if (this.count > 0) return;
    this.#interval?.cancel();
    this.#interval = undefined;
  }

  #onChange(): void {
    if (this.count === 0) return;
    this.#change ??= this.#runtime.after(CHANGE_DELAY_MS, () => {
      this.#change = undefined;
      for (const connection of this.#connections) connection.reconcile();
      this.#tellAll();
    });
  }

  #nextInterval(): Timer {
    return this.#runtime.after(STATUS_INTERVAL_MS, () => {
      this.#interval = this.#nextInterval();
      this.#tellAll();
      if (++this.#statuses % STATUSES_PER_PING !== 0) return;
      for (const connection of this.#connections) connection.checkAlive();
    });
  }

  #tellAll(): void {
    const text = this.#statusText();
    for (const connection of this.#connections) connection.sendStatus(text);
  }

  #statusText(): string {
    const message: ServerMessage<DaemonStatus> = { type: 'status', status: this.#view.status() };
    return JSON.stringify(message);
  }
}

function isLoopback(address: string | undefined): boolean {
  return address === '::1' || /^(::ffff:)?127\./.test(address ?? '');
}
