// All viewers: takes WebSocket connections, tells them the status as it changes, and finds the dead ones.
//
// Invariants: a bounded number of connections, and of those of limited tokens; the status is made once for all
// viewers of one token, and no timer runs while there are none.

import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import type { DaemonView } from '../daemon/view.ts';
import type { ServerMessage } from '../outputs/browser/protocol.ts';
import { Confinement } from '../runtime/confinement.ts';
import { type Runtime, type Timer, until } from '../runtime/runtime.ts';
import { HttpError } from './http-error.ts';
import { MAX_MESSAGE_BYTES, type ServerLimits } from './limits.ts';
import type { Permit } from './permit.ts';
import type { PermittedView } from './permitted-view.ts';
import type { RefusalCounts } from './refusal-counts.ts';
import type { ServedStatus } from './served-status.ts';
import { ViewerConnection } from './viewer-connection.ts';

/** How often viewers are told numbers that have no event (rates, counts). */
const STATUS_INTERVAL_MS = 500;

/** Changes within this time are told together. */
const CHANGE_DELAY_MS = 20;

/** Every so many statuses the connections are checked: 5 s. */
const STATUSES_PER_PING = 10;

/** How long the other ends have to say goodbye. */
const CLOSE_TIMEOUT_MS = 1000;

export interface ViewersOptions {
  readonly view: DaemonView;
  readonly limits: ServerLimits;
  readonly refused: RefusalCounts;
}

/** An upgrade request whose access was checked. */
export interface ViewerRequest {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
  readonly view: PermittedView;
}

export class Viewers {
  readonly #runtime: Runtime;
  readonly #options: ViewersOptions;
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

  constructor(runtime: Runtime, options: ViewersOptions) {
    const onFailure = (error: Error) => {
      runtime.log.error({ err: error }, 'telling the viewers failed: a defect of ours');
    };
    this.#runtime = new Confinement(runtime, onFailure).runtime;
    this.#options = options;
    this.#subscription = options.view.onChange(() => this.#onChange());
  }

  get count(): number {
    return this.#connections.size;
  }

  /** Makes a checked upgrade request a viewer. @throws HttpError 503 when there are too many */
  accept({ request, socket, head, view }: ViewerRequest): void {
    if (this.#closing) throw new HttpError(503, 'the server is stopping');
    this.#checkRoom(view.permit);
    const local = isLoopback(request.socket.remoteAddress);
    // Before anything is answered: what fails here is an ordinary error of this request.
    const status = statusText(view);
    this.#sockets.handleUpgrade(request, socket, head, (accepted) => {
      const runtime = this.#runtime;
      const { refused, limits } = this.#options;
      const { viewerWorkPerSecond: workPerSecond } = limits;
      const options = { runtime, view, refused, local, workPerSecond };
      const connection = new ViewerConnection(accepted, options);
      this.#connections.add(connection);
      accepted.on('close', () => this.#remove(connection));
      connection.sendStatus(status);
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

  #checkRoom(permit: Permit): void {
    const { viewers, limitedViewers, viewersPerLimitedToken } = this.#options.limits;
    const permits = [...this.#connections].map(({ view }) => view.permit);
    checkCount(this.count, viewers);
    if (!permit.restricted) return;
    checkCount(permits.filter(({ restricted }) => restricted).length, limitedViewers);
    checkCount(permits.filter((other) => other === permit).length, viewersPerLimitedToken);
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
    const texts = new Map<Permit, string>();
    for (const connection of this.#connections) {
      const { view } = connection;
      const text = texts.get(view.permit) ?? statusText(view);
      texts.set(view.permit, text);
      connection.sendStatus(text);
    }
  }
}

function statusText(view: PermittedView): string {
  const message: ServerMessage<ServedStatus> = { type: 'status', status: view.served() };
  return JSON.stringify(message);
}

/** @throws HttpError 503 when as many as `limit` are there */
function checkCount(count: number, limit: number): void {
  if (count < limit) return;
  throw new HttpError(503, `there are ${count} viewers, and no room for more`, {
    reason: 'too-many-viewers',
  });
}

function isLoopback(address: string | undefined): boolean {
  return address === '::1' || /^(::ffff:)?127\./.test(address ?? '');
}
