// Messages over a byte channel, for either end of the machine's socket.
//
// Invariants: the listener gets messages one by one, in their order, and none while the stream is paused; it
// hears of the end once, with the reason unless we closed it; a peer that breaks the rules of the wire
// loses the connection.

import { ProtocolViolation } from '../../runtime/errors.ts';
import type { PacedByteChannel } from '../../xen/xenstore.ts';
import { decodeMessage, encodeMessage, MessageReader } from './wire.ts';

/** The longest there is: a mapping of MAX_BATCH grants, with a status and a frame for each. */
const MAX_MESSAGE_BYTES = 512 * 1024;

export interface MessageListener {
  /** @throws ProtocolViolation when the peer shall lose the connection */
  onMessage(message: unknown): void;
  /** Called once. */
  onClose(reason?: Error): void;
  /** Nothing waits on our side any more, after something did. */
  onDrain?(): void;
}

export class MessageStream {
  readonly #channel: PacedByteChannel;
  readonly #reader = new MessageReader(MAX_MESSAGE_BYTES);
  #listener: MessageListener;
  #paused = false;
  /** What came and waits until we go on. */
  #held: Uint8Array = new Uint8Array(0);
  #violation: ProtocolViolation | undefined;
  #closed = false;

  constructor(channel: PacedByteChannel, listener: MessageListener) {
    this.#channel = channel;
    this.#listener = listener;
    channel.listen({
      onBytes: (bytes) => this.#take(bytes),
      onClose: (reason) => this.#finish(this.#violation ?? reason),
      onDrain: () => this.#listener.onDrain?.(),
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Bytes that were sent and that the peer has not taken. */
  get pendingBytes(): number {
    return this.#channel.pendingBytes;
  }

  /** From now on somebody else gets what comes. */
  listen(listener: MessageListener): void {
    this.#listener = listener;
  }

  send(message: unknown): void {
    if (!this.#closed) this.#channel.send(encodeMessage(message));
  }

  pause(): void {
    this.#paused = true;
    this.#channel.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    const held = this.#held;
    this.#held = new Uint8Array(0);
    this.#take(held);
    if (!this.#paused) this.#channel.resume();
  }

  close(): void {
    this.#channel.close();
  }

  #take(bytes: Uint8Array): void {
    let rest = bytes;
    try {
      while (rest.length > 0 && !this.#closed) {
        if (this.#paused) {
          this.#held = Buffer.concat([this.#held, rest]);
          return;
        }
        const taken = this.#reader.take(rest);
        rest = taken.rest;
        if (taken.whole) this.#listener.onMessage(decodeMessage(taken.whole));
      }
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#violation = error;
      this.close();
    }
  }

  #finish(reason: Error | undefined): void {
    this.#closed = true;
    this.#listener.onClose(reason);
  }
}
