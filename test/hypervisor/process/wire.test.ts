import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  decodeMessage,
  encodeMessage,
  MessageReader,
} from '../../../src/hypervisor/process/wire.ts';
import { ProtocolViolation } from '../../../src/runtime/errors.ts';

const LIMIT = 64 * 1024;

function* messagesOf(reader: MessageReader, bytes: Uint8Array): Generator<unknown> {
  let rest = bytes;
  while (rest.length > 0) {
    const taken = reader.take(rest);
    rest = taken.rest;
    if (taken.whole) yield decodeMessage(taken.whole);
  }
}

const value = fc.oneof(
  fc.integer(),
  fc.string(),
  fc.boolean(),
  fc.uint32Array(),
  fc.int16Array(),
  fc.dictionary(fc.constantFrom('frames', 'pages', 'refs'), fc.oneof(fc.uint32Array(), fc.nat())),
);
const message = fc.oneof(
  fc.constant(0),
  fc.record({ id: fc.nat(), request: value, result: value }, { noNullPrototype: true }),
);

/** As JSON would have it, arrays apart. */
function plain(given: unknown): unknown {
  if (typeof given !== 'object' || given === null || ArrayBuffer.isView(given)) return given;
  return Object.fromEntries(Object.entries(given).map(([key, item]) => [key, plain(item)]));
}

test('messages arrive as they were sent, in whatever pieces the stream brings them', () => {
  fc.assert(
    fc.property(fc.array(message), fc.integer({ min: 1, max: 50 }), (messages, pieceBytes) => {
      const stream = Buffer.concat(messages.map((each) => encodeMessage(each)));
      const reader = new MessageReader(LIMIT);
      const got: unknown[] = [];
      for (let at = 0; at < stream.length; at += pieceBytes) {
        got.push(...messagesOf(reader, stream.subarray(at, at + pieceBytes)));
      }
      assert.deepEqual(got.map(plain), messages.map(plain));
    }),
  );
});

test('whatever comes is a message or a violation, and never larger than what was sent', () => {
  const noise = fc.uint8Array({ maxLength: 200 });
  const bent = fc.tuple(message, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }));
  const damaged = bent.map(([whole, changes]) => {
    const bytes = new Uint8Array(encodeMessage(whole));
    for (const [at, byte] of changes) bytes[at % bytes.length] = byte;
    return bytes;
  });
  fc.assert(
    fc.property(fc.oneof(noise, damaged), (bytes) => {
      try {
        for (const got of messagesOf(new MessageReader(LIMIT), bytes)) {
          assert(arrayBytes(got) <= bytes.length);
        }
      } catch (error) {
        assert(error instanceof ProtocolViolation, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

function arrayBytes(given: unknown): number {
  if (ArrayBuffer.isView(given)) return given.byteLength;
  if (typeof given !== 'object' || given === null) return 0;
  return Object.values(given).reduce<number>((total, item) => total + arrayBytes(item), 0);
}
