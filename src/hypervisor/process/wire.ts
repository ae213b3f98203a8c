// How messages between the machine and a process are written: a length, then JSON, then the numbers of the
// message's arrays, which the JSON only names. Nothing of it can be code, or larger than what was sent.
//
// Invariants: a message is read as a whole or refused; arrays lie in the order in which the JSON names them
// and fill the rest of the message to its end. A message without any content is a wake-up.

import { messageOf, ProtocolViolation } from '../../runtime/errors.ts';
import { WAKE_UP } from '../remote/messages.ts';

/** What stands for an array in the JSON: its kind; beside it, `length`. */
const ARRAY = '$array';
const LENGTH_BYTES = 4;
const EMPTY = new Uint8Array(LENGTH_BYTES);

type NumberArray = Uint32Array | Int16Array;

/** A message as it goes over a stream. */
export function encodeMessage(message: unknown): Uint8Array {
  if (message === WAKE_UP) return EMPTY;
  const arrays: NumberArray[] = [];
  const text = Buffer.from(
    JSON.stringify(message, (_, value: unknown) => {
      if (!(value instanceof Uint32Array || value instanceof Int16Array)) return value;
      arrays.push(value);
      return { [ARRAY]: value instanceof Uint32Array ? 'u32' : 'i16', length: value.length };
    }),
  );
  const head = new Uint8Array(2 * LENGTH_BYTES);
  const arrayBytes = arrays.reduce((total, { byteLength }) => total + byteLength, 0);
  const view = new DataView(head.buffer);
  view.setUint32(0, LENGTH_BYTES + text.length + arrayBytes, true);
  view.setUint32(LENGTH_BYTES, text.length, true);
  const parts = arrays.map((array) => bytesOf(array));
  return Buffer.concat([head, text, ...parts]);
}

/** The message in the bytes behind a length. @throws ProtocolViolation `malformed-message` */
export function decodeMessage(bytes: Uint8Array): unknown {
  if (bytes.length === 0) return WAKE_UP;
  if (bytes.length < LENGTH_BYTES) throw malformed(`a message of ${bytes.length} bytes`);
  const textEnd = LENGTH_BYTES + lengthAt(bytes);
  if (textEnd > bytes.length) throw malformed('its text is longer than the message');
  const arrays = new ArrayReader(bytes.subarray(textEnd));
  const message = parse(bytes.subarray(LENGTH_BYTES, textEnd), arrays);
  arrays.end();
  return message;
}

/** Cuts a stream into messages; holds one unfinished message of at most `maxBytes`. */
export class MessageReader {
  readonly #maxBytes: number;
  readonly #head = new Uint8Array(LENGTH_BYTES);
  #headBytes = 0;
  #body: Uint8Array | undefined;
  #bodyBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Takes bytes up to the end of one message.
   * @returns what is left, and the message when it is whole @throws ProtocolViolation `malformed-message`
   */
  take(bytes: Uint8Array): { rest: Uint8Array; whole: Uint8Array | undefined } {
    const rest = this.#takeHead(bytes);
    const body = this.#body;
    if (!body) return { rest, whole: undefined };
    const part = rest.subarray(0, body.length - this.#bodyBytes);
    body.set(part, this.#bodyBytes);
    this.#bodyBytes += part.length;
    const done = this.#bodyBytes === body.length;
    if (done) this.#body = undefined;
    return { rest: rest.subarray(part.length), whole: done ? body : undefined };
  }

  #takeHead(bytes: Uint8Array): Uint8Array {
    if (this.#body) return bytes;
    const part = bytes.subarray(0, LENGTH_BYTES - this.#headBytes);
    this.#head.set(part, this.#headBytes);
    this.#headBytes += part.length;
    if (this.#headBytes === LENGTH_BYTES) this.#begin(lengthAt(this.#head));
    return bytes.subarray(part.length);
  }

  #begin(length: number): void {
    if (length > this.#maxBytes) throw malformed(`a message of ${length} bytes`);
    this.#body = new Uint8Array(length);
    this.#bodyBytes = 0;
    this.#headBytes = 0;
  }
}

class ArrayReader {
  #rest: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#rest = bytes;
  }

  next(kind: unknown, length: unknown): NumberArray {
    const itemBytes = kind === 'u32' ? 4 : 2;
    if (kind !== 'u32' && kind !== 'i16') throw malformed('an array of an unknown kind');
    const fits = typeof length === 'number' && Number.isInteger(length) && length >= 0;
    if (!fits || length * itemBytes > this.#rest.length) throw malformed('an array beyond its end');
    // A copy of its own, aligned.
    const { buffer } = new Uint8Array(this.#rest.subarray(0, length * itemBytes));
    this.#rest = this.#rest.subarray(length * itemBytes);
    return kind === 'u32' ? new Uint32Array(buffer) : new Int16Array(buffer);
  }

  end(): void {
    if (this.#rest.length > 0) throw malformed('bytes behind its end');
  }
}

function parse(text: Uint8Array, arrays: ArrayReader): unknown {
  try {
    return JSON.parse(Buffer.from(text).toString('utf8'), (_, value: unknown) => {
      if (typeof value !== 'object' || value === null || !Object.hasOwn(value, ARRAY)) return value;
      const named = value as Record<string, unknown>;
      return arrays.next(named[ARRAY], named.length);
    });
  } catch (error) {
    if (error instanceof ProtocolViolation) throw error;
    throw malformed(messageOf(error).slice(0, 100));
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: NumberArray): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function lengthAt(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}

function malformed(detail: string): ProtocolViolation {
  return new ProtocolViolation('malformed-message', 'XEN_EINVAL', detail);
}
