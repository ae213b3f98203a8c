// What a hostile guest does with shares, one act at a time: it offers what makes no sense, changes what it offered, opens
// what others offer to it and writes whatever it likes there, lets nobody in or go, and says anything in xenstore.

import {
  SHARE_ANSWERS,
  SHARE_ATTACHED_REFUSED,
  SHARE_OFFERS,
  SHARE_ROOT,
  SHARE_STATES_OFFSET,
} from '../../src/abi/share.ts';
import type { Random } from '../../src/runtime/random.ts';
import { makeReadableBy } from '../../src/share/nodes.ts';
import type { Domain } from '../../src/xen/domain.ts';
import type { DomId, Gref } from '../../src/xen/ids.ts';
import { between, happens, oneOf } from '../chance.ts';
import type { Acts } from './act-loop.ts';
import { RawExporter, RawImporter, type RawShareWorld } from './raw-ends.ts';

export interface ShareHands {
  readonly random: Random;
  readonly domain: Domain;
  /** Domains that share, this one left out. */
  peers(): DomId[];
  readonly exporters: RawExporter[];
  readonly importers: RawImporter[];
}

const EXPORTERS_MAX = 8;
const MANY_OFFERS = 140;
const MANY_OFFERS_ONE_IN = 12;
const NO_REF = 0 as Gref;
const FIELDS = [
  'slot_pages',
  'slots',
  'data_offset',
  'directory_ref',
  'control_ref',
  'session',
] as const;
const IMPORTERS_MAX = 4;
const SLOTS_MAX = 3;
const STATES = [0, 1, 2, 3, 0xffff_ffff] as const;
/** Metadata that are none: of no type, a picture that does not fit, a name that is no text, a name without an end. */
const METADATA = [
  { type: 7 },
  { type: 1, width: 64, height: 64, stride: 256 },
  { type: 1, width: 0, height: 1, stride: 4 },
  { type: 1, width: 1, height: 0, stride: 4 },
  { type: 1, width: 2, height: 2, stride: 0 },
  { type: 1, width: 2, height: 2, stride: 8, refresh_mhz: 60_000 },
  { name: new Uint8Array(80).fill(0xff) },
  { name: new Uint8Array(80).fill(0x41) },
  { user_bytes: 5 },
  { total_bytes: 2n ** 60n },
] as const;
const WORDS = [0, 1, 2, 64, 65, 0x7fff_ffff, 0xffff_ffff] as const;
const VALUES = [
  '',
  'accepted',
  'refused over-budget',
  'refused Ü',
  'versions=2 offer-refs=1,2 event-channel=1 generation=0',
  'versions=1 offer-refs=0,0 event-channel=0 generation=0',
  'versions=1 offer-refs=8,9 event-channel=4294967295 generation=-1',
  'versions=1 offer-refs=8,9 event-channel=3 generation=2 withdraw-ms=0',
  'versions=1 offer-refs=8,9,10 event-channel=3 generation=2',
  'versions=1 event-channel=3 generation=2',
  'word='.repeat(120),
] as const;
const VERBATIM: RawShareWorld = { run: (promise) => promise };

function peerOf({ peers, random }: ShareHands): DomId | undefined {
  const all = peers();
  return all.length > 0 ? oneOf(random, all) : undefined;
}

/** An offer, right or nearly right. */
async function offerShare(hands: ShareHands): Promise<void> {
  const { random, domain, exporters } = hands;
  const to = peerOf(hands);
  if (to === undefined) return;
  if (exporters.length >= EXPORTERS_MAX) return withdrawShare(hands);
  const wrong = happens(random, 3) ? { [oneOf(random, FIELDS)]: oneOf(random, WORDS) } : {};
  const raw = await RawExporter.open(VERBATIM, {
    from: { domain },
    to,
    id: Buffer.from(random.bytes(16)).toString('hex'),
    slots: between(random, 1, SLOTS_MAX),
    stream: happens(random, 2),
    writable: happens(random, 2),
    fields: wrong,
    ...(happens(random, 4) && {
      refs: (refs) => refs.map(() => oneOf(random, [refs[0]!, NO_REF])),
    }),
    ...(happens(random, 4) && { metadata: oneOf(random, METADATA) }),
    ...(happens(random, 8) && { metadataBytes: oneOf(random, [0, 4097, 5000]) }),
    ...(happens(random, 6) && { node: () => oneOf(random, VALUES) }),
  });
  const manner = random.below(8);
  if (manner < 2) raw.onEvent = () => {};
  if (manner === 2) raw.onEvent = () => raw.answer(SHARE_ATTACHED_REFUSED);
  if (manner === 3) raw.onEvent = () => raw.die();
  exporters.push(raw);
}

/** Everything of one offer goes, whether or not somebody has it open. */
async function withdrawShare({ random, domain, exporters }: ShareHands): Promise<void> {
  const [raw] = exporters.splice(random.below(Math.max(1, exporters.length)), 1);
  if (!raw) return;
  if (happens(random, 2)) await domain.store.remove(raw.path);
  await raw.offer[Symbol.asyncDispose]();
  await raw.control[Symbol.asyncDispose]();
  await raw.data[Symbol.asyncDispose]();
  await raw.channel[Symbol.asyncDispose]();
}

/** A frame that may be none. */
async function sendFrame({ random, exporters }: ShareHands): Promise<void> {
  if (exporters.length === 0) return;
  const sequence = BigInt(happens(random, 4) ? oneOf(random, WORDS) : between(random, 1, 20));
  const bytes = BigInt(happens(random, 4) ? oneOf(random, WORDS) : 16);
  const state = happens(random, 3) ? oneOf(random, STATES) : 1;
  oneOf(random, exporters).frame(random.below(SLOTS_MAX), { sequence, bytes, state });
}

/** Words of an offer that are changed when somebody may read them. */
async function lieInOffer({ random, exporters }: ShareHands): Promise<void> {
  if (exporters.length === 0) return;
  const { offer, channel } = oneOf(random, exporters);
  const words = new Uint32Array(offer.bytes.buffer, offer.bytes.byteOffset, offer.bytes.length / 4);
  words[happens(random, 2) ? random.below(24) : 1024 + random.below(16)] = oneOf(random, WORDS);
  channel.notify();
}

/** Opens what is offered to it, and says that it is there, or lets everybody wait. */
async function openShare(hands: ShareHands): Promise<void> {
  const { random, domain, importers } = hands;
  const exporter = peerOf(hands);
  if (exporter === undefined) return;
  if (importers.length >= IMPORTERS_MAX) return leaveShare(hands);
  const path = `/local/domain/${exporter}/${SHARE_ROOT}/${SHARE_OFFERS}/${domain.domid}`;
  const ids = (await domain.store.directory(path)) ?? [];
  if (ids.length === 0) return;
  const id = oneOf(random, ids);
  const raw = await RawImporter.open(VERBATIM, { of: { domain }, exporter, id });
  importers.push(raw);
  if (happens(random, 4)) return;
  raw.attach({ version: happens(random, 6) ? 9 : 1, session: between(random, 1, 100) });
}

/** Who has it open is not to have it any more, or who offers it is gone without taking it back. */
async function turnOut({ random, exporters }: ShareHands): Promise<void> {
  if (exporters.length === 0) return;
  const raw = oneOf(random, exporters);
  if (happens(random, 2)) raw.answer(SHARE_ATTACHED_REFUSED);
  else raw.die();
}

/** Says that an offer is withdrawn, at once or some time ago; and answers whoever opens it all the same. */
async function announceEnd({ random, domain, exporters }: ShareHands): Promise<void> {
  if (exporters.length === 0) return;
  const raw = oneOf(random, exporters);
  const value = await domain.store.read(raw.path);
  if (value === undefined) return;
  await domain.store.write(raw.path, `${value} withdraw-ms=${oneOf(random, [0, 10, 1000])}`);
}

/** More offers than anybody looks at, of nothing. */
async function offerMany({ random, domain, peers }: ShareHands): Promise<void> {
  const all = peers();
  if (all.length === 0 || !happens(random, MANY_OFFERS_ONE_IN)) return;
  const root = `/local/domain/${domain.domid}/${SHARE_ROOT}/${SHARE_OFFERS}/${oneOf(random, all)}`;
  for (let left = MANY_OFFERS; left > 0; left--) {
    const id = Buffer.from(random.bytes(16)).toString('hex');
    await domain.store.write(`${root}/${id}`, oneOf(random, VALUES));
  }
  await domain.store.remove(root);
}

/** Goes, as a program does that dies, or without a word and with everything mapped. */
async function leaveShare({ random, importers }: ShareHands): Promise<void> {
  const [raw] = importers.splice(random.below(Math.max(1, importers.length)), 1);
  await raw?.leave(VERBATIM);
}

/** The page that both write to. */
async function lieInControl({ random, importers, exporters }: ShareHands): Promise<void> {
  const all = [...importers, ...exporters];
  if (all.length === 0) return;
  const { control, channel } = oneOf(random, all);
  const words = new Uint32Array(control.bytes.buffer, control.bytes.byteOffset, 1024);
  if (happens(random, 2)) {
    words[SHARE_STATES_OFFSET / 4 + random.below(SLOTS_MAX)] = oneOf(random, STATES);
  } else {
    words[random.below(6)] = oneOf(random, WORDS);
  }
  channel.notify();
}

/** Anything, where an answer or an offer may be. */
async function sayAnything(hands: ShareHands): Promise<void> {
  const { random, domain, exporters } = hands;
  const peer = peerOf(hands);
  if (peer === undefined) return;
  const where = happens(random, 2) ? SHARE_ANSWERS : SHARE_OFFERS;
  const offered = `/local/domain/${peer}/${SHARE_ROOT}/${SHARE_OFFERS}/${domain.domid}`;
  const known =
    where === SHARE_ANSWERS
      ? ((await domain.store.directory(offered)) ?? [])
      : exporters.map(({ id }) => id);
  const id = known.length > 0 && !happens(random, 4) ? oneOf(random, known) : 'x';
  const path = `/local/domain/${domain.domid}/${SHARE_ROOT}/${where}/${peer}`;
  const rights = { owner: domain.domid, reader: peer };
  if (where === SHARE_ANSWERS) await makeReadableBy(domain.store, path, rights);
  if (happens(random, 6)) await domain.store.remove(path);
  else await domain.store.write(`${path}/${id}`, oneOf(random, VALUES));
}

/** The acts by name, with how often each is chosen. */
export const SHARE_ACTS: Acts<ShareHands> = {
  offerShare: { act: offerShare, weight: 6 },
  withdrawShare: { act: withdrawShare, weight: 2 },
  sendFrame: { act: sendFrame, weight: 8 },
  lieInOffer: { act: lieInOffer, weight: 3 },
  openShare: { act: openShare, weight: 6 },
  leaveShare: { act: leaveShare, weight: 2 },
  lieInControl: { act: lieInControl, weight: 4 },
  sayAnything: { act: sayAnything, weight: 3 },
  turnOut: { act: turnOut, weight: 2 },
  announceEnd: { act: announceEnd, weight: 2 },
  offerMany: { act: offerMany, weight: 1 },
};
