// Makes update messages out of what a screen's damage tracker knows.
//
// Pixels are packed synchronously into a buffer of the packer's own (so an update is one moment of the
// comparison copy); compressing happens on the thread pool, several chunks at once. Invariants: one update
// at a time uses the buffer, so memory per packer is at most one frame and its compressed form; the main
// thread never compresses.

import assert from 'node:assert/strict';
import { promisify } from 'node:util';
import { deflateRaw } from 'node:zlib';
import type { DamageTracker } from '../damage.ts';
import { RECTANGLE_WORDS, Rectangles } from '../rectangles.ts';
import {
  CODEC_DEFLATE_RAW,
  CODEC_RAW,
  headerBytes,
  padded,
  type ScreenKey,
  type UpdateHeader,
  writeHeader,
} from './protocol.ts';

const deflate = promisify(deflateRaw);

/** Level 1: a screenful of text in a third of the time of the default, at a tenth more bytes. */
const DEFLATE_LEVEL = 1;

/** Pixels that are compressed in one go: large enough to compress well, small enough to share the cores. */
const CHUNK_BYTES = 1024 * 1024;

/** Output buffers this large keep the trips between the thread pool and the main thread few. */
const DEFLATE_OUTPUT_BYTES = 128 * 1024;

/** Compressing less than this saves no packet. */
const WORTH_DEFLATING_BYTES = 1024;

export interface PackRequest extends ScreenKey {
  readonly frame: number;
  /** The generation that the viewer has seen; 0 for a viewer that has nothing. */
  readonly seen: number;
  readonly compress: boolean;
}

interface PackedChunk {
  readonly codec: number;
  readonly pixelBytes: number;
  readonly dataBytes: number;
  readonly data: Buffer;
}

export class UpdatePacker {
  readonly #rectangles = new Rectangles();
  #buffer: Buffer = Buffer.alloc(0);
  #busy = false;

  /**
   * The message that takes a viewer from generation `seen` to the tracker's newest. The pixels are taken
   * before this returns its promise; the message is valid until the next call.
   * @throws AssertionError when called while an update is being packed
   */
  async pack(damage: DamageTracker, request: PackRequest): Promise<Buffer> {
    assert(!this.#busy, 'one update at a time');
    this.#busy = true;
    try {
      return await this.#pack(damage, request);
    } finally {
      this.#busy = false;
    }
  }

  async #pack(damage: DamageTracker, { seen, compress, ...about }: PackRequest): Promise<Buffer> {
    damage.collect(seen, this.#rectangles);
    const rectangles = this.#rectangles.words;
    const { width, height } = damage;
    const header = { ...about, fourcc: damage.format?.fourcc ?? 0, width, height };
    const pixelBytes = damage.packedBytes(this.#rectangles);
    const dataAt = headerBytes(this.#rectangles.count, 1);
    const message = this.#reserve(dataAt + padded(pixelBytes));
    damage.pack(this.#rectangles, message, dataAt);
    if (compress && pixelBytes >= WORTH_DEFLATING_BYTES) {
      const chunks = await compressed(message.subarray(dataAt, dataAt + pixelBytes));
      return assemble(header, rectangles, chunks);
    }
    const raw = { codec: CODEC_RAW, pixelBytes, dataBytes: pixelBytes };
    writeHeader(wordsOf(message), header, rectangles, [raw]);
    return message;
  }

  /** The first `bytes` bytes of a buffer that is kept for the next update. */
  #reserve(bytes: number): Buffer {
    if (this.#buffer.length < bytes) this.#buffer = Buffer.allocUnsafeSlow(bytes);
    return this.#buffer.subarray(0, bytes);
  }
}

/** The words of a buffer that starts on a word. */
function wordsOf(buffer: Buffer): Uint32Array {
  return new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.length >>> 2);
}

function compressed(pixels: Buffer): Promise<PackedChunk[]> {
  const slices: Buffer[] = [];
  for (let at = 0; at < pixels.length; at += CHUNK_BYTES) {
    slices.push(pixels.subarray(at, at + CHUNK_BYTES));
  }
  return Promise.all(slices.map(compressedChunk));
}

/** Deflated, or as it is when that is not smaller. */
async function compressedChunk(pixels: Buffer): Promise<PackedChunk> {
  const pixelBytes = pixels.length;
  const data = await deflate(pixels, { level: DEFLATE_LEVEL, chunkSize: DEFLATE_OUTPUT_BYTES });
  if (data.length >= pixelBytes) {
    return { codec: CODEC_RAW, pixelBytes, dataBytes: pixelBytes, data: pixels };
  }
  return { codec: CODEC_DEFLATE_RAW, pixelBytes, dataBytes: data.length, data };
}

function assemble(
  header: UpdateHeader,
  rectangles: Uint32Array,
  chunks: readonly PackedChunk[],
): Buffer {
  let at = headerBytes(rectangles.length / RECTANGLE_WORDS, chunks.length);
  const total = chunks.reduce((bytes, { dataBytes }) => bytes + padded(dataBytes), at);
  const message = Buffer.allocUnsafeSlow(total);
  writeHeader(wordsOf(message), header, rectangles, chunks);
  for (const { data, dataBytes } of chunks) {
    message.set(data, at);
    message.fill(0, at + dataBytes, at + padded(dataBytes));
    at += padded(dataBytes);
  }
  return message;
}
