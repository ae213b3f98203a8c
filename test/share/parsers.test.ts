// The parsers of what the other end writes, by property: what is written is read back, and garbage is a value that
// makes sense or a violation, never anything else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { SHARE_PAGES_MAX, shareMetadata, shareOffer } from '../../src/abi/share.ts';
import { ProtocolViolation } from '../../src/runtime/errors.ts';
import {
  encodeMetadata,
  parseMetadata,
  type ShareMetadata,
  USER_BYTES_MAX,
} from '../../src/share/metadata.ts';
import { formatAnswer, formatOffer, parseAnswer, parseOffer } from '../../src/share/nodes.ts';
import { OfferReader, OfferWriter } from '../../src/share/offer-page.ts';
import { parseShareId } from '../../src/share/share-id.ts';
import { gref, port } from '../../src/xen/ids.ts';
import { distrust } from '../../src/xen/untrusted.ts';

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const positive = fc.integer({ min: 1, max: 0xffff_ffff });
const u8 = fc.integer({ min: 0, max: 255 });

/** What `parse` makes of garbage; a violation is as good. */
function tolerant<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    assert(error instanceof ProtocolViolation, String(error));
    return undefined;
  }
}

test('an offer’s node is read back as it was written', () =>
  fc.assert(
    fc.property(
      fc.record({
        versions: fc.array(u32, { minLength: 1, maxLength: 8 }),
        refs: fc.tuple(positive, positive),
        channel: positive,
        generation: u32,
        withdrawMs: fc.option(u32, { nil: undefined }),
        owner: fc.option(fc.stringMatching(/^[!-~]{1,128}$/), { nil: undefined }),
      }),
      ({ versions, refs, channel, generation, withdrawMs, owner }) => {
        const offer = {
          versions,
          offerRefs: [gref(refs[0]), gref(refs[1])] as const,
          port: port(channel),
          generation,
          ...(withdrawMs !== undefined && { withdrawMs }),
          ...(owner !== undefined && { owner }),
        };
        assert.deepEqual(parseOffer(distrust(formatOffer(offer)), 'node'), offer);
      },
    ),
  ));

test('garbage in a node is refused, or makes sense', () =>
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ maxLength: 600 }),
        fc
          .array(
            fc.tuple(
              fc.constantFrom(
                'versions',
                'offer-refs',
                'event-channel',
                'generation',
                'withdraw-ms',
                'x',
              ),
              fc.oneof(fc.string(), u32.map(String), fc.constant('1,2')),
            ),
          )
          .map((words) => words.map(([name, value]) => `${name}=${value}`).join(' ')),
      ),
      (text) => {
        const offer = tolerant(() => parseOffer(distrust(text), 'node'));
        if (offer) assert(offer.port > 0 && offer.offerRefs.every((ref) => ref > 0));
        tolerant(() => parseAnswer(distrust(text), 'node'));
      },
    ),
  ));

test('an answer is read back as it was written', () =>
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z-]{1,32}$/), (reason) => {
      const answer = { kind: 'refused', reason } as const;
      assert.deepEqual(parseAnswer(distrust(formatAnswer(answer)), 'node'), answer);
    }),
  ));

const content = fc.oneof(
  fc.record(
    { type: fc.constant('bytes' as const), totalBytes: fc.integer({ min: 1, max: 2 ** 52 }) },
    { requiredKeys: ['type'], noNullPrototype: true },
  ),
  fc.record(
    {
      type: fc.constant('picture' as const),
      format: u32,
      width: positive,
      height: fc.integer({ min: 1, max: 4096 }),
      stride: fc.integer({ min: 1, max: 32_768 }),
      modifier: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      refreshHz: fc.integer({ min: 1, max: 1000 }),
      colour: fc.record(
        { primaries: u8, transfer: u8, matrix: u8, fullRange: fc.boolean() },
        { noNullPrototype: true },
      ),
    },
    { noNullPrototype: true },
  ),
);

test('metadata are read back as they were written', () =>
  fc.assert(
    fc.property(
      content,
      fc.stringMatching(/^[ -~äöü€]{0,20}$/),
      fc.uint8Array({ maxLength: USER_BYTES_MAX }),
      (what, name, userBytes) => {
        const metadata: ShareMetadata = { name, content: what, userBytes };
        const slotBytes = 4096 * 32_768;
        const read = parseMetadata(distrust(encodeMetadata(metadata)), slotBytes);
        assert.deepEqual(
          { ...read, userBytes: [...read.userBytes] },
          { ...metadata, userBytes: [...userBytes] },
        );
      },
    ),
  ));

test('garbage in metadata is refused, or a picture that fits', () =>
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 4096 }),
      fc.array(fc.tuple(fc.integer({ min: 0, max: 127 }), u8)),
      (bytes, edits) => {
        const edited = new Uint8Array(shareMetadata.size);
        for (const [at, value] of edits) edited[at] = value;
        for (const candidate of [bytes, edited]) {
          const metadata = tolerant(() => parseMetadata(distrust(candidate), 9000));
          if (metadata?.content.type !== 'picture') continue;
          assert(metadata.content.stride * metadata.content.height <= 9000);
        }
      },
    ),
  ));

test('a name cannot move the cursor of a terminal', () => {
  const name = 'a\u001b[2Jb\nc\u202ed';
  const metadata = { name, content: { type: 'bytes' as const }, userBytes: new Uint8Array(0) };
  const read = parseMetadata(distrust(encodeMetadata(metadata)), 1);
  assert.equal(read.name, 'a\ufffd[2Jb\ufffdc\ufffdd');
});

test('garbage in the page of an offer is refused, or an offer that the protocol allows', () =>
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 87 }), u8), { maxLength: 12 }),
      fc.boolean(),
      (edits, stream) => {
        const pages = new Uint8Array(2 * PAGE_SIZE);
        const id = parseShareId('ab'.repeat(16))!;
        const sound = {
          id,
          writable: false,
          stream,
          slots: 1,
          slotPages: 2,
          slotBytes: 5000,
          dataOffset: 7,
        };
        new OfferWriter(pages, { ...sound, directoryRef: gref(1), controlRef: gref(2) });
        for (const [at, value] of edits) pages[at] = value;
        const reader = new OfferReader(pages);
        const offer = tolerant(() => reader.offer());
        if (offer) {
          assert(offer.slots >= 1 && offer.slots <= 64 && (offer.stream || offer.slots === 1));
          assert(offer.slots * offer.slotPages <= SHARE_PAGES_MAX);
          assert(offer.dataOffset + offer.slotBytes <= offer.slotPages * PAGE_SIZE);
        }
        tolerant(() => reader.metadata());
        assert(shareOffer.size <= PAGE_SIZE);
      },
    ),
  ));
