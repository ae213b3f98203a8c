// Requests to a xenstored over a byte channel, and their replies (docs/misc/xenstore.txt of the Xen tree).
//
// Invariants: every request's promise settles, at the latest when the channel closes; a reply goes to the
// request that has its number; at most MAX_OUTSTANDING requests are with the server, the others
// wait their turn here, MAX_QUEUED of them; a server that breaks the protocol loses the connection.

import { XENSTORE_PAYLOAD_MAX, XS_ERROR, XS_WATCH_EVENT, xsMessageName } from '../abi/xs-wire.ts';
import { ProtocolViolation, SysError } from '../runtime/errors.ts';
import type { ByteChannel } from './xenstore.ts';
import {
  decodeString,
  encodeMessage,
  MessageParser,
  type PayloadPart,
  payloadLength,
  type XenstoreMessage,
} from './xenstore-wire.ts';

/** Requests with the server; it allows a domain 20, watch events that were not taken included. */
const MAX_OUTSTANDING = 16;
/** Requests that may wait here for their turn. */
const MAX_QUEUED = 4096;

export interface XenstoreRequest {
  /** XS_*. */
  readonly type: number;
  /** The transaction, 0 outside of any. */
  readonly transactionId: number;
  readonly parts: readonly PayloadPart[];
  /** What is being done, for the message of an error. */
  readonly context: string;
}

interface Waiting {
  readonly request: XenstoreRequest;
  /** That there is no such node is an answer, and no error. */
  readonly mayBeAbsent: boolean;
  readonly resolve: (payload: Buffer | undefined) => void;
  readonly reject: (error: SysError) => void;
}

export interface RequestsListener {
  /** Gets the payload of each XS_WATCH_EVENT. */
  onWatchEvent(payload: Buffer): void;
  /** Called once, at once when the connection is over. */
  onClosed(): void;
}

export class XenstoreRequests {
  readonly #channel: ByteChannel;
  readonly #listener: RequestsListener;
  readonly #parser = new MessageParser();
  readonly #outstanding = new Map<number, Waiting>();
  readonly #queue: Waiting[] = [];
  #lastId = 0;
  #closed = false;
  #tellClosed!: (reason: Error | undefined) => void;

  /** Resolves when the connection is over: with the reason, or undefined when we closed it. */
  readonly closed = new Promise<Error | undefined>((resolve) => {
    this.#tellClosed = resolve;
  });

  /** Takes over the channel. */
  constructor(channel: ByteChannel, listener: RequestsListener) {
    this.#channel = channel;
    this.#listener = listener;
    channel.listen({
      onBytes: (bytes) => this.#receive(bytes),
      onClose: (reason) => this.#finish(reason),
    });
  }

  /**
   * The payload of the reply.
   * @throws SysError with the server's errno name; E2BIG when the request does not fit into a message;
   *   EBUSY when too many requests wait; ECONNRESET when the connection is over
   */
  request(request: XenstoreRequest): Promise<Buffer> {
    return this.#ask(request, false) as Promise<Buffer>;
  }

  /** The same, or undefined when there is no such node (ENOENT), which whoever looks expects every day. */
  look(request: XenstoreRequest): Promise<Buffer | undefined> {
    return this.#ask(request, true);
  }

  close(): void {
    this.#finish(undefined);
    this.#channel.close();
  }

  #ask(request: XenstoreRequest, mayBeAbsent: boolean): Promise<Buffer | undefined> {
    const length = payloadLength(request.parts);
    if (length > XENSTORE_PAYLOAD_MAX) {
      const remedy = `path and value take ${length} bytes, at most ${XENSTORE_PAYLOAD_MAX} fit`;
      return Promise.reject(requestError(request, 'E2BIG', remedy));
    }
    if (this.#closed) return Promise.reject(requestError(request, 'ECONNRESET'));
    if (this.#queue.length >= MAX_QUEUED) return Promise.reject(requestError(request, 'EBUSY'));
    return new Promise((resolve, reject) => {
      this.#queue.push({ request, mayBeAbsent, resolve, reject });
      this.#sendWhatMay();
    });
  }

  #sendWhatMay(): void {
    while (this.#outstanding.size < MAX_OUTSTANDING) {
      const waiting = this.#queue.shift();
      if (!waiting) return;
      const requestId = this.#freeId();
      const { type, transactionId, parts } = waiting.request;
      this.#outstanding.set(requestId, waiting);
      this.#channel.send(encodeMessage({ type, requestId, transactionId }, ...parts));
    }
  }

  #freeId(): number {
    do {
      this.#lastId = (this.#lastId + 1) >>> 0;
    } while (this.#lastId === 0 || this.#outstanding.has(this.#lastId));
    return this.#lastId;
  }

  #receive(bytes: Uint8Array): void {
    if (this.#closed) return;
    try {
      this.#parser.push(bytes, (message) => this.#take(message));
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#finish(error);
      this.#channel.close();
    }
  }

  #take(message: XenstoreMessage): void {
    if (this.#closed) return;
    if (message.type === XS_WATCH_EVENT) {
      this.#listener.onWatchEvent(message.payload);
      return;
    }
    const waiting = this.#outstanding.get(message.requestId);
    const { type } = message;
    if (!waiting || (type !== waiting.request.type && type !== XS_ERROR)) {
      const detail = `${xsMessageName(type)} for request ${message.requestId}`;
      throw new ProtocolViolation('unexpected-reply', 'XEN_EINVAL', detail);
    }
    this.#outstanding.delete(message.requestId);
    if (type === XS_ERROR) refuse(waiting, message.payload);
    else waiting.resolve(message.payload);
    this.#sendWhatMay();
  }

  #finish(reason: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    const over = [...this.#outstanding.values(), ...this.#queue.splice(0)];
    this.#outstanding.clear();
    for (const { request, reject } of over) {
      reject(requestError(request, 'ECONNRESET', reason && `xenstore: ${reason.message}`));
    }
    this.#listener.onClosed();
    this.#tellClosed(reason);
  }
}

/** What a person can do about the server's refusals, where something sensible can be said. */
const REMEDIES: Readonly<Record<string, string>> = {
  EACCES: 'the owner of the node can allow it with xenstore-chmod',
  ENOSPC: "the domain's quota is used up; remove nodes, or raise it where xenstored is started",
  E2BIG: "too long for a message, or the domain's quota of watches is used up",
};

/** Settles what the server has answered with an errno name, which ends at its NUL. */
function refuse({ request, mayBeAbsent, resolve, reject }: Waiting, payload: Buffer): void {
  const [errnoName = ''] = decodeString(payload).split('\0', 1);
  if (mayBeAbsent && errnoName === 'ENOENT') resolve(undefined);
  else reject(requestError(request, errnoName, REMEDIES[errnoName]));
}

function requestError(request: XenstoreRequest, errnoName: string, remedy?: string): SysError {
  const call = xsMessageName(request.type);
  const details = { call, errnoName, context: request.context };
  return new SysError(remedy === undefined ? details : { ...details, remedy });
}
