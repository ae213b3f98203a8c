// One client of the store: messages in and out, at the client's pace (xenstored's behaviour since XSA-326).
//
// Invariants: what the client makes us hold is bounded: requests are answered only while it takes the replies
// (the channel is paused otherwise), equal watch events that wait are one, and a client that lets more than
// MAX_EVENT_BYTES of different ones wait is disconnected; a domain's client that takes more of this thread's time than
// its share waits; whatever it sends, even when it finds a bug of ours,
// costs at most its own connection.

import { sockmsg, XENSTORE_PAYLOAD_MAX, XS_ERROR, XS_WATCH_EVENT } from '../../abi/xs-wire.ts';
import { ProtocolViolation } from '../../runtime/errors.ts';
import { RateLimit } from '../../runtime/rate-limit.ts';
import type { Runtime, Timer } from '../../runtime/runtime.ts';
import type { PacedByteChannel } from '../../xen/xenstore.ts';
import {
  encodeMessage,
  MessageParser,
  type PayloadPart,
  type XenstoreMessage,
} from '../../xen/xenstore-wire.ts';
import type { Caller } from './permissions.ts';
import type { Transaction } from './store.ts';
import { StoreError } from './store-error.ts';
import type { Watcher } from './watches.ts';

/** Bytes that may be on their way to the client before watch events wait here. */
const MAX_UNTAKEN_BYTES = 16 * 1024;
/** Bytes of watch events that may wait; near the memory quota of xenstored (2.5 MB hard). */
const MAX_EVENT_BYTES = 2 * 1024 * 1024;
const EVENT_HEAD = { type: XS_WATCH_EVENT, requestId: 0, transactionId: 0 };
/** Requests answered in one go before others get their turn. */
const MAX_REQUESTS_PER_TURN = 16;
/** This thread's time that a domain's client gets, in milliseconds: a quarter, and that much at once. */
const TIME_SHARE = { perSecond: 250, burst: 50 };

/** What a request is answered with; `after` runs when the answer is on its way. */
export interface Reply {
  readonly parts: readonly PayloadPart[];
  readonly after?: () => void;
}

export interface ConnectionOptions {
  readonly runtime: Runtime;
  readonly channel: PacedByteChannel;
  readonly caller: Caller;
  /** Replies that the client may leave untaken before its requests wait. */
  readonly maxOutstanding: number;
  /** @throws StoreError for what goes back as XS_ERROR */
  readonly handle: (connection: Connection, message: XenstoreMessage) => Reply;
  readonly onClosed: (connection: Connection, reason: Error | undefined) => void;
}

export class Connection implements Watcher {
  caller: Caller;
  /** Open transactions by their numbers. */
  readonly transactions = new Map<number, Transaction>();
  readonly #options: ConnectionOptions;
  readonly #channel: PacedByteChannel;
  readonly #parser = new MessageParser();
  readonly #requests: XenstoreMessage[] = [];
  /** Payloads of watch events that wait. */
  readonly #events = new Set<string>();
  /** Undefined for the control domain, which is not bound. */
  readonly #time: RateLimit | undefined;
  #rest: Timer | undefined;
  #eventBytes = 0;
  #untakenReplies = 0;
  #paused = false;
  #pumpScheduled = false;
  #closed = false;
  #lastTransactionId = 0;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#channel = options.channel;
    this.caller = options.caller;
    const { privileged } = options.caller;
    this.#time = privileged ? undefined : new RateLimit(options.runtime, TIME_SHARE);
  }

  /** Begins to listen; separate from the constructor so that the owner knows us before we speak. */
  start(): void {
    this.#channel.listen({
      onBytes: (bytes) => this.#receive(bytes),
      onClose: (reason) => this.#finish(reason),
      onDrain: () => this.#pump(),
    });
  }

  /** Ends the connection; the reason is for the owner's log. */
  close(reason?: Error): void {
    if (this.#closed) return;
    this.#finish(reason);
    this.#channel.close();
  }

  addTransaction(transaction: Transaction): number {
    do {
      this.#lastTransactionId = (this.#lastTransactionId + 1) >>> 0;
    } while (this.#lastTransactionId === 0 || this.transactions.has(this.#lastTransactionId));
    this.transactions.set(this.#lastTransactionId, transaction);
    return this.#lastTransactionId;
  }

  watchEvent(path: string, token: string): void {
    const payload = `${path}\0${token}\0`;
    if (this.#closed || payload.length > XENSTORE_PAYLOAD_MAX || this.#events.has(payload)) return;
    this.#events.add(payload);
    this.#eventBytes += eventBytes(payload);
    this.#sendEvents();
    if (this.#eventBytes > MAX_EVENT_BYTES) {
      const detail = `more than ${MAX_EVENT_BYTES} bytes of watch events wait`;
      this.close(new ProtocolViolation('events-not-taken', 'XEN_ENOSPC', detail));
    }
  }

  #receive(bytes: Uint8Array): void {
    if (this.#closed) return;
    try {
      this.#parser.push(bytes, (message) => this.#requests.push(message));
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.close(error);
      return;
    }
    this.#pump();
  }

  /** Sends and answers what may be sent and answered now. */
  #pump(): void {
    this.#sendEvents();
    const beganMs = this.#options.runtime.nowMs();
    for (let turn = 0; turn < MAX_REQUESTS_PER_TURN && this.#mayAnswer(); turn++) {
      const message = this.#requests.shift();
      if (!message) break;
      this.#answer(message);
    }
    if (this.#closed) return;
    this.#restFor(this.#options.runtime.nowMs() - beganMs);
    this.#pace(this.#requests.length > 0 || this.#rest !== undefined);
    if (this.#requests.length > 0 && this.#mayAnswer()) this.#pumpLater();
  }

  #mayAnswer(): boolean {
    if (this.#channel.pendingBytes === 0) this.#untakenReplies = 0;
    if (this.#closed || this.#rest !== undefined) return false;
    return this.#untakenReplies < this.#options.maxOutstanding;
  }

  /** Answers nothing for as long as the client has had more of our time than its share. */
  #restFor(spentMs: number): void {
    this.#time?.spend(spentMs);
    const overdrawnMs = this.#time?.overdrawnMs ?? 0;
    if (overdrawnMs === 0 || this.#rest !== undefined) return;
    this.#rest = this.#options.runtime.after(overdrawnMs, () => {
      this.#rest = undefined;
      this.#pump();
    });
  }

  #pace(wait: boolean): void {
    if (wait === this.#paused) return;
    this.#paused = wait;
    if (wait) this.#channel.pause();
    else this.#channel.resume();
  }

  #pumpLater(): void {
    if (this.#pumpScheduled) return;
    this.#pumpScheduled = true;
    this.#options.runtime.defer(() => {
      this.#pumpScheduled = false;
      if (!this.#closed) this.#pump();
    });
  }

  #answer(message: XenstoreMessage): void {
    const { requestId, transactionId } = message;
    const reply = (type: number, parts: readonly PayloadPart[]) => {
      this.#untakenReplies++;
      this.#channel.send(encodeMessage({ type, requestId, transactionId }, ...parts));
    };
    try {
      const { parts, after } = this.#options.handle(this, message);
      reply(message.type, parts);
      after?.();
    } catch (error) {
      if (error instanceof StoreError) reply(XS_ERROR, [`${error.errnoName}\0`]);
      else this.close(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #sendEvents(): void {
    for (const payload of this.#events) {
      if (this.#closed || this.#channel.pendingBytes >= MAX_UNTAKEN_BYTES) return;
      this.#events.delete(payload);
      this.#eventBytes -= eventBytes(payload);
      this.#channel.send(encodeMessage(EVENT_HEAD, payload));
    }
  }

  #finish(reason: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#rest?.cancel();
    this.#requests.length = 0;
    this.#events.clear();
    this.transactions.clear();
    this.#options.onClosed(this, reason);
  }
}

/** What a watch event takes on the wire. */
function eventBytes(payload: string): number {
  return sockmsg.size + payload.length;
}
