// Sends a file, or whatever comes by standard input, as a stream of bytes: read straight into the shared slots.
//
// Invariant: frames are published in the order of their bytes, though several are read at once from a file.

import type { InputFile } from './input-file.ts';
import type { Recipient } from './recipient.ts';

/** Sends all of it; the stream is not ended. @throws SysError, ShareError `importer-gone` */
export function sendBytes(input: InputFile, recipient: Recipient): Promise<void> {
  return input.bytes === undefined
    ? sendAsItComes(input, recipient)
    : sendAhead(input, recipient, input.bytes);
}

async function sendAsItComes(input: InputFile, recipient: Recipient): Promise<void> {
  for (;;) {
    const frame = await recipient.acquire();
    const count = await input.next(frame.bytes, recipient.signal);
    if (count === 0) return frame.discard();
    recipient.publish(frame, count);
  }
}

/** Every free slot is being filled, by the threads that Node has for files. */
async function sendAhead(input: InputFile, recipient: Recipient, total: number): Promise<void> {
  let published = Promise.resolve();
  let failure: unknown;
  for (let position = 0; position < total && failure === undefined; ) {
    const frame = await recipient.acquire();
    const length = Math.min(frame.bytes.length, total - position);
    const reading = input.readAt(frame.bytes.subarray(0, length), position);
    const before = published;
    published = Promise.all([reading, before]).then(() => recipient.publish(frame, length));
    published.catch((error: unknown) => {
      failure ??= error;
    });
    position += length;
  }
  await published;
}
