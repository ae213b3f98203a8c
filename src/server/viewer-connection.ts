// One page (or program) on the WebSocket /api/view: which screens it sees, what it sends to guests.
//
// Invariants: what it watches is exactly what it last asked for, as far as that exists and its token reaches it;
// it gets at most one update per screen and one status at a time; what it says is read at a bounded rate, and while
// it takes what it asked for; everything it holds down is released when it
// goes. What goes wrong in its own code ends it, and nobody else. A message that is not of the protocol, or that the token does not allow, ends the connection with the reason.

import type { RawData, WebSocket } from 'ws';
import type { ScreenKey, ViewerMessage } from '../outputs/browser/protocol.ts';
import { ScreenViewer, type ViewerTransport } from '../outputs/browser/screen-viewer.ts';
import { Confinement } from '../runtime/confinement.ts';
import { messageOf } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { type DomId, domId } from '../xen/ids.ts';
import { GuestHands } from './guest-hands.ts';
import { HttpError } from './http-error.ts';
import { parseViewerMessage } from './messages.ts';
import type { PermittedView } from './permitted-view.ts';
import type { RefusalCounts } from './refusal-counts.ts';
import { ViewerPace } from './viewer-pace.ts';

/** A viewer that has not taken this much yet does not get another status. */
const STATUS_BACKLOG_BYTES = 64 * 1024;

/** Updates that may be on their way for screens that are not watched any more. */
const LEFT_OVER_UPDATES = 4;

/** WebSocket close codes (RFC 6455, section 7.4.1). */
const CLOSE_GOING_AWAY = 1001;
const CLOSE_UNSUPPORTED_DATA = 1003;
const CLOSE_POLICY_VIOLATION = 1008;
const CLOSE_INTERNAL_ERROR = 1011;

/** Bytes of a close reason (RFC 6455, section 5.5). */
const MAX_REASON_BYTES = 123;

export interface ViewerConnectionOptions {
  readonly runtime: Runtime;
  readonly view: PermittedView;
  readonly refused: RefusalCounts;
  /** Whether the other end is on this machine. */
  readonly local: boolean;
  /** See `ServerLimits.viewerWorkPerSecond`. */
  readonly workPerSecond: number;
}

export class ViewerConnection {
  /** The daemon as far as the viewer's token reaches. */
  readonly view: PermittedView;
  readonly #socket: WebSocket;
  readonly #runtime: Runtime;
  readonly #work: Confinement;
  readonly #refused: RefusalCounts;
  readonly #transport: ViewerTransport;
  #wanted: readonly ScreenKey[] = [];
  readonly #viewers = new Map<string, ScreenViewer>();
  readonly #hands = new Map<DomId, GuestHands>();
  readonly #pace: ViewerPace;
  /** Updates that the system has not taken yet. */
  #sending = 0;
  #answeredPing = true;

  constructor(socket: WebSocket, options: ViewerConnectionOptions) {
    const { runtime, view, refused, local, workPerSecond } = options;
    this.#socket = socket;
    this.#work = new Confinement(runtime, (error) => this.#broke(error));
    this.#runtime = this.#work.runtime;
    this.view = view;
    this.#refused = refused;
    const onRest = () => refused.countRest();
    this.#pace = new ViewerPace(this.#runtime, { source: socket, workPerSecond, onRest });
    this.#transport = {
      local,
      send: (message) => this.#send(message),
      fail: (reason) => this.#end(CLOSE_INTERNAL_ERROR, messageOf(reason)),
    };
    socket.on('message', (data, isBinary) => {
      this.#work.enter(() => this.#receive(data, isBinary));
    });
    socket.on('pong', () => {
      this.#answeredPing = true;
    });
    socket.on('close', () => this.#work.enter(() => this.#release()));
    socket.on('error', ({ message }) => {
      runtime.log.debug({ reason: message }, 'a viewer’s connection broke');
    });
  }

  /** Watches what was asked for, as far as it is there now; called when guests or screens came or went. */
  reconcile(): void {
    this.#work.enter(() => void this.#reconcile());
  }

  /** @returns how many screens are watched that were not before */
  #reconcile(): number {
    this.#letGo();
    let added = 0;
    const wanted = new Map(this.#wanted.map((key) => [keyOf(key), key]));
    for (const [name, viewer] of this.#viewers) {
      const key = wanted.get(name);
      if (key && this.#screenOf(key) === viewer.screen) continue;
      viewer[Symbol.dispose]();
      this.#viewers.delete(name);
    }
    for (const [name, key] of wanted) {
      const screen = this.#screenOf(key);
      if (!screen || this.#viewers.has(name)) continue;
      const onClosed = () => this.#viewers.delete(name);
      const transport = this.#transport;
      added += 1;
      this.#viewers.set(name, new ScreenViewer(this.#runtime, { screen, transport, onClosed }));
    }
    return added;
  }

  /** Tells the page the state of everything, unless it is still busy with what it was told before. */
  sendStatus(text: string): void {
    if (this.#socket.bufferedAmount > STATUS_BACKLOG_BYTES) return;
    this.#socket.send(text, ignoreFailure);
  }

  /**
   * Ends a connection whose other end has not answered the last ping, or pings it again. One that waits for its rate
   * has not been heard.
   */
  checkAlive(): void {
    if (this.#pace.resting) return;
    if (!this.#answeredPing) {
      this.#socket.terminate();
      return;
    }
    this.#answeredPing = false;
    this.#socket.ping();
  }

  /** Says goodbye; the socket closes when the other end has answered. */
  close(): void {
    this.#end(CLOSE_GOING_AWAY, 'the server is stopping');
  }

  /** Closes the socket without waiting for the other end. */
  terminate(): void {
    this.#socket.terminate();
  }

  #receive(data: RawData, isBinary: boolean): void {
    // After a violation nothing more is listened to, though more may have arrived already.
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    this.#answeredPing = true;
    if (isBinary) {
      this.#end(CLOSE_UNSUPPORTED_DATA, 'messages to the server are JSON text');
      return;
    }
    try {
      const message = parseViewerMessage(data.toString());
      this.#pace.served(message, this.#act(message));
    } catch (error) {
      if (!(error instanceof HttpError)) throw error;
      this.#refused.count(error);
      this.#end(CLOSE_POLICY_VIOLATION, error.message);
    }
  }

  /** @returns how many screens are watched that were not before */
  #act(message: ViewerMessage): number {
    switch (message.type) {
      case 'watch':
        this.#wanted = message.screens;
        return this.#reconcile();
      case 'drawn':
        this.#viewers.get(keyOf(message))?.drawn(message.frame);
        break;
      case 'input':
        this.view.permit.checkMayAct();
        this.#handsOn(domId(message.domid))?.send(message.events);
        this.#stir(message.domid);
        break;
      case 'release':
        this.#hands.get(domId(message.domid))?.release();
        break;
    }
    return 0;
  }

  /** This viewer's hands on the guest's input as it is now; a restarted driver has a new one. */
  #handsOn(domid: DomId): GuestHands | undefined {
    const input = this.view.input(domid);
    if (!input) return undefined;
    let hands = this.#hands.get(domid);
    if (hands?.input !== input) {
      hands = new GuestHands(input);
      this.#hands.set(domid, hands);
    }
    return hands;
  }

  /** Releases what is held down on guests that are gone, or not there for this viewer any more. */
  #letGo(): void {
    for (const [domid, hands] of this.#hands) {
      if (this.view.input(domid) === hands.input) continue;
      hands.release();
      this.#hands.delete(domid);
    }
  }

  #stir(domid: number): void {
    for (const { screen } of this.#viewers.values()) {
      if (screen.info.domid === domid) screen.stir();
    }
  }

  #screenOf({ domid, connector }: ScreenKey) {
    return this.view.screen(domId(domid), connector);
  }

  #send(message: Uint8Array): Promise<void> {
    this.#noteSending(1);
    return new Promise((resolve, reject) => {
      this.#socket.send(message, (error) => {
        this.#noteSending(-1);
        if (error) reject(error);
        else resolve();
      });
    });
  }

  /** One that asks for screens again and again, and does not take them, would fill our memory with updates. */
  #noteSending(change: 1 | -1): void {
    this.#sending += change;
    this.#pace.congested = this.#sending > this.#wanted.length + LEFT_OVER_UPDATES;
  }

  #end(code: number, reason: string): void {
    this.#socket.close(code, clipped(reason));
  }

  #broke(error: Error): void {
    this.#runtime.log.error({ err: error }, 'a viewer’s connection failed: a defect of ours');
    this.#end(CLOSE_INTERNAL_ERROR, 'the server failed; its log says why');
  }

  #release(): void {
    this.#pace.end();
    this.#wanted = [];
    this.#reconcile();
    for (const hands of this.#hands.values()) hands.release();
    this.#hands.clear();
  }
}

/** A text that could not be sent went to a page that is gone; its close event does the rest. */
function ignoreFailure(): void {}

function keyOf({ domid, connector }: ScreenKey): string {
  return `${domid}/${connector}`;
}

/** At most as many bytes of `reason` as a close message has room for. */
function clipped(reason: string): Buffer {
  return Buffer.from(
    Buffer.from(reason)
      .subarray(0, MAX_REASON_BYTES)
      .toString()
      .replace(/\uFFFD$/, ''),
  );
}
