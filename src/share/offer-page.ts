// The two pages of an offer that the importer can read: what is shared and where its pages are named, and the
// metadata, which can change (docs/share-protocol.md, "The offer").
//
// Invariants: the exporter alone writes; metadata are replaced under a generation that is odd meanwhile, so
// that a reader never takes a mixture of two for one; what is read is copied once and checked as a whole.

import { PAGE_SIZE } from '../abi/page.ts';
import {
  SHARE_FLAG_STREAM,
  SHARE_FLAG_WRITABLE,
  SHARE_FRAMES_OFFSET,
  SHARE_MAGIC,
  SHARE_METADATA_MAX,
  SHARE_PAGES_MAX,
  SHARE_SLOTS_MAX,
  shareFrame,
  shareOffer,
} from '../abi/share.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import { type Gref, gref } from '../xen/ids.ts';
import { check, distrust, type Untrusted } from '../xen/untrusted.ts';
import { idBytes, idOfBytes, type ShareId } from './share-id.ts';

/** What is shared. */
export interface Offer {
  readonly id: ShareId;
  readonly writable: boolean;
  readonly stream: boolean;
  /** Buffers: one unless it is a stream. */
  readonly slots: number;
  /** Pages of each slot. */
  readonly slotPages: number;
  /** Bytes of each slot, from the data offset on. */
  readonly slotBytes: number;
  readonly dataOffset: number;
  readonly directoryRef: Gref;
  readonly controlRef: Gref;
}

/** A frame as its producer describes it. */
export interface FrameFacts {
  readonly sequence: number;
  readonly timestampNs: bigint;
  /** Of the frame. */
  readonly byteLength: number;
}

/** How often a reader tries to find the metadata at rest. */
const METADATA_TRIES = 16;

const { generation, metadata_bytes, session, attached, ended, dropped, exporter_live } =
  shareOffer.fields;
const WORD_BYTES = Int32Array.BYTES_PER_ELEMENT;
const GENERATION = generation.offset / WORD_BYTES;
const SESSION = session.offset / WORD_BYTES;
const ATTACHED = attached.offset / WORD_BYTES;
const ENDED = ended.offset / WORD_BYTES;

/** Offset of the byte that is cleared when the exporter is gone. */
export const EXPORTER_LIVE_BYTE = exporter_live.offset;

/** The pages, cut up once. */
class OfferPages {
  readonly words: Int32Array;
  readonly view: DataView;
  readonly metadata: Uint8Array;
  readonly bytes: Uint8Array;

  /** `bytes`: both pages. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.words = new Int32Array(bytes.buffer, bytes.byteOffset, PAGE_SIZE / WORD_BYTES);
    this.view = new DataView(bytes.buffer, bytes.byteOffset, PAGE_SIZE);
    this.metadata = bytes.subarray(PAGE_SIZE, 2 * PAGE_SIZE);
  }
}

/** The exporter's hand on its offer. */
export class OfferWriter {
  readonly #pages: OfferPages;

  constructor(bytes: Uint8Array, offer: Offer) {
    this.#pages = new OfferPages(bytes);
    const flags =
      (offer.writable ? SHARE_FLAG_WRITABLE : 0) | (offer.stream ? SHARE_FLAG_STREAM : 0);
    shareOffer.write(this.#pages.view, 0, {
      magic: SHARE_MAGIC,
      flags,
      id: idBytes(offer.id),
      slots: offer.slots,
      slot_pages: offer.slotPages,
      slot_bytes: BigInt(offer.slotBytes),
      data_offset: offer.dataOffset,
      directory_ref: offer.directoryRef,
      control_ref: offer.controlRef,
      generation: 0,
      metadata_bytes: 0,
      session: 0,
      attached: 0,
      ended: 0,
      dropped: 0n,
      exporter_live: 0,
    });
  }

  /** The exporter is there from now on, until the farewell of the page. */
  setLive(): void {
    Atomics.store(this.#pages.bytes, EXPORTER_LIVE_BYTE, 1);
  }

  /** Replaces the metadata. @returns their generation, an even number */
  setMetadata(encoded: Uint8Array): number {
    const { words, view, metadata } = this.#pages;
    Atomics.add(words, GENERATION, 1);
    metadata.fill(0);
    metadata.set(encoded);
    metadata_bytes.set(view, 0, encoded.length);
    return (Atomics.add(words, GENERATION, 1) + 1) >>> 0;
  }

  /** Answers an importer that has attached: SHARE_ATTACHED_*. */
  answer(session: number, attached: number): void {
    Atomics.store(this.#pages.words, ATTACHED, attached);
    Atomics.store(this.#pages.words, SESSION, session | 0);
  }

  end(): void {
    Atomics.store(this.#pages.words, ENDED, 1);
  }

  countDropped(count: bigint): void {
    dropped.set(this.#pages.view, 0, count);
  }

  /** Describes what is in a slot; seen with the slot's state, which is stored after it. */
  describeFrame(slot: number, { sequence, timestampNs, byteLength }: FrameFacts): void {
    shareFrame.write(this.#pages.view, frameOffset(slot), {
      sequence: BigInt(sequence),
      timestamp_ns: timestampNs,
      bytes: BigInt(byteLength),
      flags: 0,
    });
  }
}

/** The importer's eye on an offer of another domain. */
export class OfferReader {
  readonly #pages: OfferPages;

  constructor(bytes: Uint8Array) {
    this.#pages = new OfferPages(bytes);
  }

  /** @throws ProtocolViolation `malformed-offer` (XEN_EINVAL) */
  offer(): Offer {
    const { bytes } = this.#pages;
    const copy = bytes.slice(0, shareOffer.size);
    return check(distrust(new DataView(copy.buffer)), parseOfferPage);
  }

  /** A copy of the metadata of one generation. @throws ProtocolViolation `restless-metadata`, `malformed-offer` */
  metadata(): { readonly generation: number; readonly copy: Untrusted<Uint8Array> } {
    const { words, view, metadata } = this.#pages;
    for (let attempt = 0; attempt < METADATA_TRIES; attempt++) {
      const before = Atomics.load(words, GENERATION);
      const length = metadata_bytes.get(view, 0);
      const copy = metadata.slice(0, Math.min(length, SHARE_METADATA_MAX));
      const settled = before % 2 === 0 && Atomics.load(words, GENERATION) === before;
      if (!settled) continue;
      if (length > SHARE_METADATA_MAX) throw malformed(`${length} bytes of metadata`);
      return { generation: before >>> 0, copy: distrust(copy) };
    }
    const detail = `the metadata did not come to rest in ${METADATA_TRIES} tries`;
    throw new ProtocolViolation('restless-metadata', 'XEN_EINVAL', detail);
  }

  get exporterLive(): boolean {
    return Atomics.load(this.#pages.bytes, EXPORTER_LIVE_BYTE) === 1;
  }

  /** The importer that was answered last. */
  get session(): number {
    return Atomics.load(this.#pages.words, SESSION) >>> 0;
  }

  /** What it was answered: SHARE_ATTACHED_*, or whatever was written there. */
  get attached(): number {
    return Atomics.load(this.#pages.words, ATTACHED);
  }

  get ended(): boolean {
    return Atomics.load(this.#pages.words, ENDED) !== 0;
  }

  /** The sequence of the frame in a slot, to choose by; whole only while the slot is held. */
  sequenceOf(slot: number): bigint {
    return shareFrame.fields.sequence.get(this.#pages.view, frameOffset(slot));
  }

  /** What is in a slot that is held. @throws ProtocolViolation `malformed-frame` (XEN_EINVAL) */
  frame(slot: number, slotBytes: number): FrameFacts {
    const offset = frameOffset(slot);
    const copy = this.#pages.bytes.slice(offset, offset + shareFrame.size);
    return check(distrust(new DataView(copy.buffer)), (view) => {
      const fields = shareFrame.read(view, 0);
      const sequence = Number(fields.sequence);
      const byteLength = Number(fields.bytes);
      if (sequence < 1 || !Number.isSafeInteger(sequence) || byteLength > slotBytes) {
        const detail = `frame ${fields.sequence} of ${fields.bytes} bytes in a slot of ${slotBytes}`;
        throw new ProtocolViolation('malformed-frame', 'XEN_EINVAL', detail);
      }
      return { sequence, timestampNs: fields.timestamp_ns, byteLength };
    });
  }
}

function frameOffset(slot: number): number {
  return SHARE_FRAMES_OFFSET + slot * shareFrame.size;
}

function parseOfferPage(view: DataView): Offer {
  const fields = shareOffer.read(view, 0);
  if (fields.magic !== SHARE_MAGIC) throw malformed(`the magic number is ${fields.magic}`);
  const { slots, slot_pages: slotPages, data_offset: dataOffset } = fields;
  const stream = (fields.flags & SHARE_FLAG_STREAM) !== 0;
  if (slots < 1 || slots > (stream ? SHARE_SLOTS_MAX : 1)) throw malformed(`${slots} slots`);
  if (slotPages < 1 || slots * slotPages > SHARE_PAGES_MAX) {
    throw malformed(`${slots} slots of ${slotPages} pages`);
  }
  const slotBytes = Number(fields.slot_bytes);
  const pages = Math.ceil((dataOffset + slotBytes) / PAGE_SIZE);
  if (dataOffset >= PAGE_SIZE || slotBytes < 1 || pages !== slotPages) {
    throw malformed(`${fields.slot_bytes} bytes from ${dataOffset} on in ${slotPages} pages`);
  }
  const ref = (name: 'directory_ref' | 'control_ref') => {
    if (fields[name] === 0) throw malformed(`${name} is 0`);
    return gref(fields[name]);
  };
  return {
    id: idOfBytes(fields.id),
    writable: (fields.flags & SHARE_FLAG_WRITABLE) !== 0,
    stream,
    slots,
    slotPages,
    slotBytes,
    dataOffset,
    directoryRef: ref('directory_ref'),
    controlRef: ref('control_ref'),
  };
}

function malformed(detail: string): ProtocolViolation {
  return new ProtocolViolation('malformed-offer', 'XEN_EINVAL', detail);
}
