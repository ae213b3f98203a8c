// Xenstore messages in a stream of bytes: a head of 16 bytes and a payload (xen/include/public/io/xs_wire.h).
//
// Invariants: pieces may be cut anywhere; a payload longer than XENSTORE_PAYLOAD_MAX ends the stream
// before anything is allocated for it; nothing is allocated but each message's own payload.
// Strings on the wire are bytes: one character below U+0100 each, so that every token and path comes
// back as it was sent. Values are bytes too; what they mean is their users' affair.

import assert from 'node:assert/strict';
import { sockmsg, XENSTORE_PAYLOAD_MAX } from '../abi/xs-wire.ts';
import { ProtocolViolation } from '../runtime/errors.ts';

export interface XenstoreHead {
  /** XS_*. */
  readonly type: number;
  /** The requester's number for the request; 0 in watch events. */
  readonly requestId: number;
  /** 0 outside of transactions. */
  readonly transactionId: number;
}

export interface XenstoreMessage extends XenstoreHead {
  /** A private copy. */
  readonly payload: Buffer;
}

/** A piece of a payload: a string (of one-byte characters) or bytes. */
export type PayloadPart = string | Uint8Array;

const HEAD_BYTES = sockmsg.size;
const EMPTY = Buffer.alloc(0);
/** So many bytes are copied faster one by one than by making a view of them. */
const FEW_BYTES = 64;
const { type, req_id, tx_id, len } = sockmsg.fields;

/** Cuts a stream of bytes, given in pieces of any size, into messages. */
export class MessageParser {
  readonly #head = new Uint8Array(HEAD_BYTES);
  readonly #headView = new DataView(this.#head.buffer);
  /** Bytes of the head and the payload received so far. */
  #received = 0;
  #payload = EMPTY;

  /**
   * Takes the next piece and calls `onMessage` for every message that it completes.
   * @throws ProtocolViolation when a payload is too long; the stream is unusable from then on
   */
  push(bytes: Uint8Array, onMessage: (message: XenstoreMessage) => void): void {
    for (let at = 0; at < bytes.length; ) {
      at += this.#received < HEAD_BYTES ? this.#takeHead(bytes, at) : this.#takePayload(bytes, at);
      if (this.#received === HEAD_BYTES + this.#payload.length) onMessage(this.#complete());
    }
  }

  #takeHead(bytes: Uint8Array, at: number): number {
    const taken = copyPiece({ from: bytes, at, to: this.#head, filled: this.#received });
    this.#received += taken;
    if (this.#received === HEAD_BYTES) {
      const length = len.get(this.#headView, 0);
      if (length > XENSTORE_PAYLOAD_MAX) {
        const detail = `${length} bytes of payload, at most ${XENSTORE_PAYLOAD_MAX} are allowed`;
        throw new ProtocolViolation('payload-too-long', 'XEN_EINVAL', detail);
      }
      this.#payload = length === 0 ? EMPTY : Buffer.alloc(length);
    }
    return taken;
  }

  #takePayload(bytes: Uint8Array, at: number): number {
    const filled = this.#received - HEAD_BYTES;
    const taken = copyPiece({ from: bytes, at, to: this.#payload, filled });
    this.#received += taken;
    return taken;
  }

  #complete(): XenstoreMessage {
    const message = {
      type: type.get(this.#headView, 0),
      requestId: req_id.get(this.#headView, 0),
      transactionId: tx_id.get(this.#headView, 0),
      payload: this.#payload,
    };
    this.#received = 0;
    this.#payload = EMPTY;
    return message;
  }
}

interface Piece {
  readonly from: Uint8Array;
  readonly at: number;
  readonly to: Uint8Array;
  readonly filled: number;
}

/** Copies as much as there is and fits; returns how many bytes that were. */
function copyPiece({ from, at, to, filled }: Piece): number {
  const count = Math.min(from.length - at, to.length - filled);
  if (count > FEW_BYTES) to.set(from.subarray(at, at + count), filled);
  else for (let index = 0; index < count; index++) to[filled + index] = from[at + index]!;
  return count;
}

/** Bytes that the parts take together. */
export function payloadLength(parts: readonly PayloadPart[]): number {
  let total = 0;
  for (const part of parts) total += part.length;
  return total;
}

/** The head of the message that is being encoded. */
const head = new Uint8Array(HEAD_BYTES);
const headView = new DataView(head.buffer);

/** A whole message: the head, then the parts one after the other. NULs between them are the caller's. */
export function encodeMessage(message: XenstoreHead, ...parts: readonly PayloadPart[]): Uint8Array {
  const length = payloadLength(parts);
  assert(length <= XENSTORE_PAYLOAD_MAX, `a payload of ${length} bytes`);
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + length);
  type.set(headView, 0, message.type);
  req_id.set(headView, 0, message.requestId);
  tx_id.set(headView, 0, message.transactionId);
  len.set(headView, 0, length);
  bytes.set(head);
  let at = HEAD_BYTES;
  for (const part of parts) {
    if (typeof part === 'string') bytes.write(part, at, 'latin1');
    else bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** The bytes as a string of one-byte characters. */
export function decodeString(bytes: Uint8Array): string {
  const buffer = Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return buffer.toString('latin1');
}

/** The strings of a payload, each ended by a NUL; what follows the last NUL counts when not empty. */
export function decodeStrings(payload: Uint8Array): string[] {
  const strings = decodeString(payload).split('\0');
  if (strings.at(-1) === '') strings.pop();
  return strings;
}
