// The page that both ends of a share write to: who is there, who wants an event, and the state of each slot
// (docs/share-protocol.md, "The control page").
//
// Invariants: every access is atomic, so what was written before a store is seen with it; nothing read here is
// believed: a state is compared with what its reader did itself, and a wrong one is a violation.

import { PAGE_SIZE } from '../abi/page.ts';
import {
  SHARE_SLOT_FREE,
  SHARE_SLOT_HELD,
  SHARE_SLOT_READY,
  SHARE_STATES_OFFSET,
  shareControl,
} from '../abi/share.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import { ID_BYTES, idBytes, idOfBytes, type ShareId } from './share-id.ts';

export type SlotState = typeof SHARE_SLOT_FREE | typeof SHARE_SLOT_READY | typeof SHARE_SLOT_HELD;

/** One of the two ends. */
export type ShareEnd = 'exporter' | 'importer';

const { fields } = shareControl;
const WORD_BYTES = Int32Array.BYTES_PER_ELEMENT;
const VERSION = fields.version.offset / WORD_BYTES;
const SESSION = fields.session.offset / WORD_BYTES;
const TURNED_AWAY = fields.turned_away.offset / WORD_BYTES;
const STATES = SHARE_STATES_OFFSET / WORD_BYTES;
const WAITS: Readonly<Record<ShareEnd, number>> = {
  exporter: fields.exporter_waits.offset / WORD_BYTES,
  importer: fields.importer_waits.offset / WORD_BYTES,
};

/** Offset of the byte that is cleared when the importer is gone. */
export const IMPORTER_LIVE_BYTE = fields.importer_live.offset;

export class ControlPage {
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;

  constructor(page: Uint8Array) {
    this.#bytes = page;
    this.#words = new Int32Array(page.buffer, page.byteOffset, PAGE_SIZE / WORD_BYTES);
  }

  /** Whether it is that of this share; its grant may be of something else by now. */
  isOf(id: ShareId): boolean {
    const { offset } = fields.id;
    return idOfBytes(this.#bytes.subarray(offset, offset + ID_BYTES)) === id;
  }

  /** Says whose page it is, before anybody is told of it. */
  name(id: ShareId): void {
    this.#bytes.set(idBytes(id), fields.id.offset);
  }

  get importerLive(): boolean {
    return Atomics.load(this.#bytes, IMPORTER_LIVE_BYTE) === 1;
  }

  /** The importer is there from now on, until the farewell of the page. */
  setLive(): void {
    Atomics.store(this.#bytes, IMPORTER_LIVE_BYTE, 1);
  }

  /** What the importer chose, or whatever was written there. */
  get version(): number {
    return Atomics.load(this.#words, VERSION) >>> 0;
  }

  set version(version: number) {
    Atomics.store(this.#words, VERSION, version);
  }

  /** The importer that is there, or whatever was written there. */
  get session(): number {
    return Atomics.load(this.#words, SESSION) >>> 0;
  }

  set session(session: number) {
    Atomics.store(this.#words, SESSION, session | 0);
  }

  /** Importers that found the share in use, by their own count. */
  get turnedAway(): number {
    return Atomics.load(this.#words, TURNED_AWAY) >>> 0;
  }

  countTurnedAway(): void {
    Atomics.add(this.#words, TURNED_AWAY, 1);
  }

  /** `end` wants an event; it looks at the states once more before it waits. */
  askForEvent(end: ShareEnd): void {
    Atomics.store(this.#words, WAITS[end], 1);
  }

  /** Whether `end` wants an event; it is asked for anew each time. */
  takeWish(end: ShareEnd): boolean {
    return Atomics.exchange(this.#words, WAITS[end], 0) !== 0;
  }

  /** @throws ProtocolViolation `malformed-slot-state` (XEN_EINVAL) */
  stateOf(slot: number): SlotState {
    const state = Atomics.load(this.#words, STATES + slot);
    if (isState(state)) return state;
    const detail = `slot ${slot} is in state ${state}`;
    throw new ProtocolViolation('malformed-slot-state', 'XEN_EINVAL', detail);
  }

  setState(slot: number, state: SlotState): void {
    Atomics.store(this.#words, STATES + slot, state);
  }

  /** Goes from one state to another, unless the other end has changed it meanwhile. */
  change(slot: number, from: SlotState, to: SlotState): boolean {
    return Atomics.compareExchange(this.#words, STATES + slot, from, to) === from;
  }
}

function isState(value: number): value is SlotState {
  return value === SHARE_SLOT_FREE || value === SHARE_SLOT_READY || value === SHARE_SLOT_HELD;
}
