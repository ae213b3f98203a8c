// The viewer protocol: what goes over the WebSocket /api/view. Shared by the server and the page, so
// there is nothing of Node nor of the browser here.
//
// To the page: pictures as binary updates (below) and `ServerMessage` as JSON text. To the server:
// `ViewerMessage` as JSON text.
//
// An update is a header of 32-bit little-endian words, then data. All pixels are the guest's own, in the
// guest's own format; the page converts them (outputs/convert.ts).
//
//   word 0    UPDATE_MAGIC             word 5    width of the whole picture, 0 when the screen is blank
//   word 1    domid                    word 6    height
//   word 2    connector                word 7    R, number of rectangles
//   word 3    frame number             word 8    C, number of chunks
//   word 4    FourCC
//   R times   x, y, width, height
//   C times   codec, bytes of pixels, bytes of data
//
// The data of the chunks follow, each padded to a word. Unpacked and put together, the chunks are the pixels
// of the rectangles one after another, in rows without padding. A rectangle's pixels replace those on the
// page; an update of another size or format than the one before has a rectangle over everything.
//
// Credit: a screen has one update under way per viewer; the next comes after `drawn` for it was received.

import { RECTANGLE_WORDS } from '../rectangles.ts';

/** "XZU1", read as a little-endian word. */
export const UPDATE_MAGIC = 0x3155_5a58;

/** How a chunk's pixels are packed. */
export const CODEC_RAW = 0;
/** RFC 1951, which pages unpack by themselves. */
export const CODEC_DEFLATE_RAW = 1;

export const HEADER_WORDS = 9;
export const CHUNK_WORDS = 3;

export interface UpdateHeader {
  readonly domid: number;
  readonly connector: number;
  /** Counts a viewer's updates of one screen. */
  readonly frame: number;
  readonly fourcc: number;
  readonly width: number;
  readonly height: number;
}

export interface Chunk {
  readonly codec: number;
  /** Bytes of pixels, unpacked. */
  readonly pixelBytes: number;
  /** Bytes in the message. */
  readonly dataBytes: number;
}

/** Bytes before the data of an update. */
export function headerBytes(rectangles: number, chunks: number): number {
  return 4 * (HEADER_WORDS + RECTANGLE_WORDS * rectangles + CHUNK_WORDS * chunks);
}

/** `bytes` rounded up to a whole number of words. */
export function padded(bytes: number): number {
  return (bytes + 3) & ~3;
}

/** Writes header, rectangles and chunks (not the data) to the beginning of `words`. */
export function writeHeader(
  words: Uint32Array,
  header: UpdateHeader,
  rectangles: Uint32Array,
  chunks: readonly Chunk[],
): void {
  words[0] = UPDATE_MAGIC;
  words[1] = header.domid;
  words[2] = header.connector;
  words[3] = header.frame;
  words[4] = header.fourcc;
  words[5] = header.width;
  words[6] = header.height;
  words[7] = rectangles.length / RECTANGLE_WORDS;
  words[8] = chunks.length;
  words.set(rectangles, HEADER_WORDS);
  let at = HEADER_WORDS + rectangles.length;
  for (const { codec, pixelBytes, dataBytes } of chunks) {
    words[at++] = codec;
    words[at++] = pixelBytes;
    words[at++] = dataBytes;
  }
}

export interface Update extends UpdateHeader {
  /** x, y, width, height of each rectangle, one after another. */
  readonly rectangles: Uint32Array;
  readonly chunks: readonly (Chunk & { readonly data: Uint8Array })[];
}

/** Takes a message apart; nothing is copied. @throws RangeError when it is no whole update */
export function readUpdate(message: ArrayBuffer): Update {
  if (message.byteLength < headerBytes(0, 0)) throw new RangeError('an update without a header');
  const words = new Uint32Array(message, 0, message.byteLength >>> 2);
  const word = (index: number) => words[index]!;
  if (word(0) !== UPDATE_MAGIC) throw new RangeError('not an update');
  const chunksAt = HEADER_WORDS + RECTANGLE_WORDS * word(7);
  let dataAt = headerBytes(word(7), word(8));
  if (dataAt > message.byteLength) throw new RangeError('an update cut off in its header');
  const chunks = Array.from({ length: word(8) }, (_, index) => {
    const at = chunksAt + CHUNK_WORDS * index;
    const chunk = { codec: word(at), pixelBytes: word(at + 1), dataBytes: word(at + 2) };
    if (dataAt + chunk.dataBytes > message.byteLength) throw new RangeError('an update cut off');
    const data = new Uint8Array(message, dataAt, chunk.dataBytes);
    dataAt += padded(chunk.dataBytes);
    return { ...chunk, data };
  });
  return {
    domid: word(1),
    connector: word(2),
    frame: word(3),
    fourcc: word(4),
    width: word(5),
    height: word(6),
    rectangles: words.subarray(HEADER_WORDS, chunksAt),
    chunks,
  };
}

/** Names a screen. */
export interface ScreenKey {
  readonly domid: number;
  readonly connector: number;
}

/** One input event, as the API and the page send it; codes are Linux evdev codes. */
export type InputEvent =
  | { readonly type: 'key'; readonly code: number; readonly pressed: boolean }
  | { readonly type: 'motion'; readonly dx: number; readonly dy: number }
  | { readonly type: 'position'; readonly x: number; readonly y: number }
  | { readonly type: 'wheel'; readonly delta: number }
  | {
      readonly type: 'touch';
      readonly contact: number;
      readonly phase: 'down' | 'move' | 'up';
      readonly x: number;
      readonly y: number;
    };

/** What the page says. */
export type ViewerMessage =
  /** All screens that the page wants to see from now on; those that do not exist yet come when they do. */
  | { readonly type: 'watch'; readonly screens: readonly ScreenKey[] }
  /** The update was drawn: the next one may come. */
  | ({ readonly type: 'drawn'; readonly frame: number } & ScreenKey)
  | { readonly type: 'input'; readonly domid: number; readonly events: readonly InputEvent[] }
  /** The focus left a guest: whatever this page holds down there is released. */
  | { readonly type: 'release'; readonly domid: number };

/** What the server says in text; `status` is what GET /api/status answers. */
export interface ServerMessage<Status> {
  readonly type: 'status';
  readonly status: Status;
}
