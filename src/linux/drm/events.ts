// The events of a card: read(2) gives several at once, each with the tag of the commit that it ends.
//
// Invariants: one read per wake-up, into memory that was there before; an event for a receiver that is
// gone is ignored; when the card itself is gone, its watching ends and `onLost` is called, once.

import { DRM_EVENT_FLIP_COMPLETE, drmEvent, drmEventVblank } from '../../abi/drm.ts';
import { FdWatcher } from '../../posix/fd-watcher.ts';
import type { CallContext } from '../../posix/libc.ts';
import type { DeviceFile } from '../device.ts';
import { tagReceiver, tagSequence } from './atomic.ts';

/** The kernel keeps 4096 bytes of events for an open file. */
const BUFFER_BYTES = 4096;
const READING: CallContext = { context: 'reading the events of a card' };

const TYPE_AT = drmEvent.fields.type.offset;
const LENGTH_AT = drmEvent.fields.length.offset;
const TAG_AT = drmEventVblank.fields.user_data.offset;

export interface FlipReceiver {
  /** The commit with this number is done: what it shows is on the screen, what was there before is not. */
  flipped(sequence: number): void;
}

export class CardEvents implements Disposable {
  readonly #file: DeviceFile;
  readonly #watcher: FdWatcher;
  readonly #onLost: (error: unknown) => void;
  readonly #bytes = new Uint8Array(new ArrayBuffer(BUFFER_BYTES));
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #receivers: (FlipReceiver | undefined)[] = [];
  #open = true;

  constructor(file: DeviceFile, onLost: (error: unknown) => void) {
    this.#file = file;
    this.#onLost = onLost;
    this.#watcher = new FdWatcher(file.fd, () => this.#onReadable());
  }

  /** @returns the number for the tags of its commits; never used again for another one */
  add(receiver: FlipReceiver): number {
    return this.#receivers.push(receiver) - 1;
  }

  remove(number: number): void {
    this.#receivers[number] = undefined;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    this.#watcher[Symbol.dispose]();
  }

  #onReadable(): void {
    if (!this.#open) return;
    let length = 0;
    try {
      length = this.#file.read(this.#bytes, READING) ?? 0;
    } catch (error) {
      this[Symbol.dispose]();
      this.#onLost(error);
      return;
    }
    for (let at = 0; at + drmEvent.size <= length; ) {
      const bytes = this.#view.getUint32(at + LENGTH_AT, true);
      if (bytes < drmEvent.size) return;
      if (this.#view.getUint32(at + TYPE_AT, true) === DRM_EVENT_FLIP_COMPLETE) this.#tell(at);
      at += bytes;
    }
  }

  #tell(at: number): void {
    const receiver = this.#receivers[tagReceiver(this.#view, at + TAG_AT)];
    receiver?.flipped(tagSequence(this.#view, at + TAG_AT));
  }
}
