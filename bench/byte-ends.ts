// What streams are compared with: `byte-ends.js memcpy|writer|reader|receiver --amount BYTES`, from standard input or to
// standard output, whatever that is. Imports nothing of the product, so that nothing makes these descriptors
// non-blocking: read(2) and write(2) of large buffers are as fast as a pipe gets.

import { readSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { parseArgs } from 'node:util';
import {
  CHUNK_BYTES,
  type EndFigures,
  measured,
  SLOTS,
  SOURCE_BYTES,
  sourceBytes,
} from './share-figures.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { amount: { type: 'string', default: '0' } },
});
const amount = Number(values.amount);

const ROLES: Readonly<Record<string, () => Promise<EndFigures>>> = {
  memcpy: copyChunks,
  writer: writeAll,
  reader: readAll,
  receiver: receiveAll,
};

const figures = await ROLES[positionals[0]!]!();
writeSync(2, `${JSON.stringify(figures)}\n`);

/** Copies of the chunks to as many places as a stream has slots. */
function copyChunks(): Promise<EndFigures> {
  const from = sourceBytes();
  const slots = Array.from({ length: SLOTS }, () => new Uint8Array(CHUNK_BYTES).fill(1));
  return measured(async () => {
    let frames = 0;
    for (let sent = 0; sent < amount; sent += CHUNK_BYTES) {
      const at = sent % SOURCE_BYTES;
      slots[frames++ % SLOTS]!.set(from.subarray(at, at + CHUNK_BYTES));
    }
    return { bytes: amount, frames };
  });
}

function writeAll(): Promise<EndFigures> {
  const from = sourceBytes();
  return measured(async () => {
    let sent = 0;
    while (sent < amount) {
      const at = sent % SOURCE_BYTES;
      sent += writeSync(1, from, at, Math.min(CHUNK_BYTES, SOURCE_BYTES - at));
    }
    return { bytes: sent, frames: 0 };
  });
}

function readAll(): Promise<EndFigures> {
  const buffer = new Uint8Array(CHUNK_BYTES);
  return measured(async () => {
    let bytes = 0;
    for (;;) {
      const count = readSync(0, buffer, 0, buffer.length, null);
      if (count === 0) return { bytes, frames: 0 };
      bytes += count;
    }
  });
}

function receiveAll(): Promise<EndFigures> {
  const buffer = new Uint8Array(CHUNK_BYTES);
  return measured(
    () =>
      new Promise((resolve) => {
        let bytes = 0;
        const callback = (count: number) => {
          bytes += count;
          return true;
        };
        const socket = new Socket({ fd: 0, onread: { buffer, callback } } as never);
        socket.on('close', () => resolve({ bytes, frames: 0 }));
        socket.on('end', () => socket.destroy());
        socket.resume();
      }),
  );
}
