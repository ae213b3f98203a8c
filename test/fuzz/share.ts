// The share protocol: nodes, offers, metadata and slots as another domain writes them.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { RawExporter, RawImporter } from '../../sim/guests/raw-ends.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import {
  shareMetadata as metadataLayout,
  SHARE_PAGES_MAX,
  SHARE_SLOTS_MAX,
} from '../../src/abi/share.ts';
import { ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import { ControlPage } from '../../src/share/control-page.ts';
import { encodeMetadata, parseMetadata } from '../../src/share/metadata.ts';
import { formatAnswer, formatOffer, parseAnswer, parseOffer } from '../../src/share/nodes.ts';
import { OfferReader, OfferWriter } from '../../src/share/offer-page.ts';
import { ShareError } from '../../src/share/share-error.ts';
import { parseShareId } from '../../src/share/share-id.ts';
import { GrantMapError } from '../../src/xen/domain.ts';
import { gref } from '../../src/xen/ids.ts';
import { distrust } from '../../src/xen/untrusted.ts';
import { sharing } from '../share/world.ts';
import { edit, edits, fuzzer, orRefused, u8, u32 } from './fuzzer.ts';

const WORDS = [
  'versions',
  'offer-refs',
  'event-channel',
  'generation',
  'withdraw-ms',
  'owner',
  'x',
];
const GOOD: Readonly<Record<string, string>> = {
  versions: '1',
  'offer-refs': '8,9',
  'event-channel': '3',
  generation: '2',
};
const wordValue = fc.oneof(
  u32.map(String),
  fc.constantFrom('1,2', '8,9', '8,9,10', '0,1', '', ',', '1,', 'a b', 'x'.repeat(200)),
  fc.string({ maxLength: 10 }),
);

/** An offer's node or an answer is a value that is written again as itself, or is refused. */
export const shareNodes = fuzzer({
  name: 'share-nodes',
  parsers: ['share/nodes.ts', 'share/share-id.ts'],
  runs: 1500,
  input: fc.record({
    changed: fc.array(fc.tuple(fc.constantFrom(...WORDS), wordValue), { maxLength: 3 }),
    left: fc.subarray(Object.keys(GOOD), { minLength: 2 }),
    extra: fc.string({ maxLength: 12 }),
    answer: fc.oneof(
      fc.constantFrom(
        '',
        'accepted',
        'refused',
        'refused no-room',
        'refused=no-room',
        'quarantined',
      ),
      fc.string({ maxLength: 40 }),
      fc.constant('x'.repeat(600)),
    ),
    separator: fc.constantFrom(' ', ' ', ' ', '  ', '\n', ' '.repeat(200)),
  }),
  check: ({ changed, left, extra, answer, separator }) => {
    const words = new Map(Object.entries(GOOD).filter(([name]) => left.includes(name)));
    for (const [name, value] of changed) words.set(name, value);
    const parts = [...words].map(([name, value]) => `${name}=${value}`);
    const text = [...parts, ...(extra === '' ? [] : [extra])].join(separator);
    const offer = orRefused(() => parseOffer(distrust(text), 'node'));
    if (offer) {
      assert(offer.port > 0 && offer.offerRefs.every((ref) => ref > 0));
      assert.deepEqual(parseOffer(distrust(formatOffer(offer)), 'node'), offer);
    }
    const said = orRefused(() => parseAnswer(distrust(answer), 'node'));
    if (said) assert.deepEqual(parseAnswer(distrust(formatAnswer(said)), 'node'), said);
    parseShareId(extra);
  },
});

const slotBytes = fc.constantFrom(1, 64, 4096, 9000, 640 * 480 * 4);
const METADATA_BYTES = 128;
const NAME = metadataLayout.fields.name;
const content = fc.oneof(
  fc.constant({ type: 'bytes' as const }),
  fc.record({ type: fc.constant('bytes' as const), totalBytes: fc.nat(1e9) }),
  fc.record({
    type: fc.constant('picture' as const),
    format: fc.constant(0x3432_5258),
    width: fc.integer({ min: 1, max: 700 }),
    height: fc.integer({ min: 1, max: 500 }),
    stride: fc.integer({ min: 1, max: 4096 }),
    modifier: fc.constant('0'),
    refreshHz: fc.nat(240),
    colour: fc.record({ primaries: u8, transfer: u8, matrix: u8, fullRange: fc.boolean() }),
  }),
);

/** Metadata describe something that fits the slots, or are refused. */
export const shareMetadata = fuzzer({
  name: 'share-metadata',
  parsers: ['share/metadata.ts'],
  runs: 1500,
  input: fc.record({
    content,
    name: fc.string({ maxLength: 100 }),
    user: fc.nat(64),
    fullName: fc.nat(9).map((roll) => roll === 0),
    edits: fc.oneof(fc.constant([]), edits(METADATA_BYTES)),
    cut: fc.oneof(fc.constant(0), fc.nat(200)),
    slotBytes,
  }),
  check: ({ content: what, name, user, fullName, edits: changes, cut, slotBytes: room }) => {
    // 64-bit numbers are text in an input, which is JSON.
    const described = 'modifier' in what ? { ...what, modifier: BigInt(what.modifier) } : what;
    const metadata = {
      name: name.slice(0, 20),
      content: described,
      userBytes: new Uint8Array(user),
    };
    const encoded = encodeMetadata(metadata);
    // A name that fills its field has no NUL behind it.
    if (fullName) encoded.fill(0x61, NAME.offset, NAME.offset + NAME.size);
    const bytes = edit(encoded.slice(cut > 100 ? cut - 100 : 0), changes);
    const read = orRefused(() => parseMetadata(distrust(bytes), room));
    if (!read) return;
    if (read.content.type === 'picture') {
      assert(read.content.stride * read.content.height <= room, 'a picture beyond its slot');
    }
    const controls = [...read.name].filter((letter) => letter < ' ' || letter === '\x7f');
    assert.deepEqual(controls, [], 'a name with control characters');
  },
});

/** Offers and slot states are what the protocol allows, or are refused. */
export const shareOffers = fuzzer({
  name: 'share-offers',
  parsers: ['share/offer-page.ts', 'share/control-page.ts'],
  runs: 1500,
  input: fc.record({
    stream: fc.boolean(),
    offer: fc.array(fc.tuple(fc.nat(88), u8), { maxLength: 4 }),
    frames: fc.array(fc.tuple(fc.nat(2 * PAGE_SIZE - 1), u8), { maxLength: 6 }),
    words: fc.array(fc.tuple(fc.nat(40), u32), { maxLength: 4 }),
  }),
  check: ({ stream, offer: changes, frames, words }) => {
    const pages = new Uint8Array(2 * PAGE_SIZE);
    const sound = {
      id: parseShareId('ab'.repeat(16))!,
      writable: false,
      stream,
      slots: stream ? 3 : 1,
      slotPages: 2,
      slotBytes: 5000,
      dataOffset: 7,
    };
    new OfferWriter(pages, { ...sound, directoryRef: gref(1), controlRef: gref(2) });
    edit(pages, frames);
    edit(pages, changes);
    const reader = new OfferReader(pages);
    const offer = orRefused(() => reader.offer());
    if (offer) {
      assert(
        offer.slots >= 1 && offer.slots <= SHARE_SLOTS_MAX && (offer.stream || offer.slots === 1),
      );
      assert(offer.slots * offer.slotPages <= SHARE_PAGES_MAX);
      assert(offer.dataOffset + offer.slotBytes <= offer.slotPages * PAGE_SIZE);
      for (let slot = 0; slot < offer.slots; slot++) {
        const frame = orRefused(() => reader.frame(slot, offer.slotBytes));
        assert(frame === undefined || frame.byteLength <= offer.slotBytes);
      }
    }
    orRefused(() => reader.metadata());
    const page = new Uint8Array(PAGE_SIZE);
    const control = new ControlPage(page);
    for (const [at, word] of words) new DataView(page.buffer).setUint32(4 * at, word, true);
    for (let slot = 0; slot < SHARE_SLOTS_MAX; slot++) orRefused(() => control.stateOf(slot));
  },
});

const act = fc.oneof(
  fc.record({ word: fc.nat(40), value: u32 }),
  fc.record({ byte: fc.nat(200), value: u8 }),
  fc.record({ notify: fc.nat(3) }),
  fc.record({ pause: fc.nat(20) }),
);

/** Both ends of ours against a peer that writes over the pages that it may write to. */
export const shareEnds = fuzzer({
  name: 'share-ends',
  parsers: [],
  runs: 25,
  input: fc.record({
    role: fc.constantFrom('exporter', 'importer' as const),
    acts: fc.array(act, { maxLength: 25 }),
  }),
  check: ({ role, acts }) =>
    sharing(async (world) => {
      const { alice, bob, run } = world;
      const typed = (error: unknown) => {
        const kinds = [ShareError, SysError, GrantMapError, ProtocolViolation];
        assert(
          kinds.some((kind) => error instanceof kind),
          error as Error,
        );
      };
      const disturb = async (pages: readonly Uint8Array[], notify: () => void) => {
        for (const each of acts) {
          const view = pages.map(
            (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
          );
          if ('word' in each) view[0]!.setUint32(4 * each.word, each.value, true);
          else if ('byte' in each) pages.at(-1)![each.byte] = each.value;
          else if ('notify' in each) for (let i = 0; i <= each.notify; i++) notify();
          else await world.pause(each.pause);
        }
        notify();
        await world.pause(50);
      };
      if (role === 'importer') {
        const exporter = world.exporter(alice);
        const to = bob.domain.domid;
        const share = await run(exporter.stream({ to, memory: { byteLength: 64 }, slots: 2 }));
        const ends = { of: bob, exporter: alice.domain.domid, id: share.id };
        const raw = await RawImporter.open(world, ends);
        raw.attach();
        const frame = share.producer.tryAcquire();
        frame?.publish();
        await disturb([raw.control.bytes], () => raw.channel.notify());
        share.producer.collect();
        await raw.leave(world);
        return;
      }
      const raw = await RawExporter.open(world, {
        from: alice,
        to: bob.domain.domid,
        stream: true,
        slots: 2,
      });
      const importer = await world.importer(bob, alice);
      await world.next(importer);
      const id = parseShareId(raw.id)!;
      const opened = await run(importer.open(id).catch(typed));
      if (opened) raw.frame(0);
      await disturb([raw.control.bytes, raw.offer.bytes], () => raw.channel.notify());
      if (!opened) return;
      await run(opened.frames.acquire({ timeoutMs: 100 }).then((frame) => frame?.release(), typed));
      await run(opened.close().catch(typed));
    }),
});
