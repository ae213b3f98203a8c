import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { XENSTORE_PAYLOAD_MAX, XS_READ } from '../../src/abi/xs-wire.ts';
import { ProtocolViolation } from '../../src/runtime/errors.ts';
import {
  decodeString,
  decodeStrings,
  encodeMessage,
  MessageParser,
  type XenstoreMessage,
} from '../../src/xen/xenstore-wire.ts';

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const payload = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
const message = fc.record(
  { type: u32, requestId: u32, transactionId: u32, payload },
  { noNullPrototype: true },
);

/** Feeds `bytes` in pieces of `size` bytes. */
function parse(bytes: Uint8Array, size: number): XenstoreMessage[] {
  const parser = new MessageParser();
  const messages: XenstoreMessage[] = [];
  for (let at = 0; at < bytes.length; at += size) {
    const piece = Uint8Array.from(bytes.subarray(at, at + size));
    parser.push(piece, (complete) => messages.push(complete));
    piece.fill(0xff);
  }
  return messages;
}

test('what was encoded is parsed again, one byte at a time or in pieces of any size', () => {
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 8 }),
      fc.integer({ min: 1, max: 400 }),
      (sent, size) => {
        const bytes = Buffer.concat(sent.map((one) => encodeMessage(one, one.payload)));
        assert.deepEqual(parse(bytes, size), sent);
        assert.deepEqual(parse(bytes, 1), sent);
      },
    ),
  );
});

test('the head is four little-endian words: type, req_id, tx_id, len', () => {
  const bytes = encodeMessage({ type: XS_READ, requestId: 0x01020304, transactionId: 5 }, '/a\0');
  assert.equal(Buffer.from(bytes).toString('hex'), '02000000040302010500000003000000' + '2f6100');
});

test('the longest payload passes; one byte more ends the stream before anything is allocated', () => {
  const head = { type: XS_READ, requestId: 1, transactionId: 0 };
  const longest = new Uint8Array(XENSTORE_PAYLOAD_MAX).fill(1);
  assert.equal(parse(encodeMessage(head, longest), 4096)[0]?.payload.length, XENSTORE_PAYLOAD_MAX);
  for (const length of [XENSTORE_PAYLOAD_MAX + 1, 0xffff_ffff]) {
    const bytes = encodeMessage(head);
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(12, length, true);
    assert.throws(
      () => parse(bytes, 1),
      (error) => error instanceof ProtocolViolation && error.reason === 'payload-too-long',
    );
  }
});

test('strings are bytes: every one comes back as it was sent', () => {
  const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const [sent] = parse(
    encodeMessage({ type: 0, requestId: 0, transactionId: 0 }, decodeString(all)),
    7,
  );
  assert.deepEqual(sent?.payload, all);
  assert.deepEqual(decodeStrings(Buffer.from('/a\0token\0')), ['/a', 'token']);
  assert.deepEqual(decodeStrings(Buffer.from('a\0\0b')), ['a', '', 'b']);
  assert.deepEqual(decodeStrings(new Uint8Array(0)), []);
});
