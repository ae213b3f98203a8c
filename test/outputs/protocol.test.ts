import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  CODEC_RAW,
  headerBytes,
  padded,
  readUpdate,
  writeHeader,
} from '../../src/outputs/browser/protocol.ts';

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });

const header = fc.record(
  {
    domid: u32,
    connector: u32,
    frame: u32,
    fourcc: u32,
    width: u32,
    height: u32,
  },
  { noNullPrototype: true },
);

test('what is written is what is read', () => {
  const rectangle = fc.tuple(u32, u32, u32, u32);
  const chunk = fc.uint8Array({ maxLength: 40 });
  fc.assert(
    fc.property(header, fc.array(rectangle), fc.array(chunk), (about, rectangles, data) => {
      const chunks = data.map(({ length }) => ({
        codec: CODEC_RAW,
        pixelBytes: length * 2,
        dataBytes: length,
      }));
      let at = headerBytes(rectangles.length, chunks.length);
      const bytes = data.reduce((sum, { length }) => sum + padded(length), at);
      const message = new Uint8Array(bytes);
      writeHeader(
        new Uint32Array(message.buffer),
        about,
        Uint32Array.from(rectangles.flat()),
        chunks,
      );
      for (const part of data) {
        message.set(part, at);
        at += padded(part.length);
      }
      const update = readUpdate(message.buffer);
      const { rectangles: read, chunks: readChunks, ...rest } = update;
      assert.deepEqual(rest, about);
      assert.deepEqual([...read], rectangles.flat());
      assert.deepEqual(
        readChunks,
        chunks.map((expected, index) => ({ ...expected, data: data[index] })),
      );
    }),
  );
});

test('any bytes are either read or refused with a RangeError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, magic) => {
      const message = new Uint8Array(bytes);
      if (magic && message.length >= 4) message.set([0x58, 0x5a, 0x55, 0x31]);
      try {
        readUpdate(message.buffer);
      } catch (error) {
        assert(error instanceof RangeError, String(error));
      }
    }),
  );
});
