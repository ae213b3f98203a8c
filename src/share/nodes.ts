// What the two ends of a share say to each other in xenstore: where, with whose permission, and in which
// words (docs/share-protocol.md, "In xenstore").
//
// Each end writes below its own domain's `data`, and lets the other read it: the exporter one node for each
// offer, the importer one for each answer. Invariant: a node's value is written whole, so who reads it sees
// one state; words that a later version adds are passed over.

import { SHARE_ANSWERS, SHARE_OFFERS, SHARE_ROOT } from '../abi/share.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { DomId, Gref, Port } from '../xen/ids.ts';
import { check, distrust, type Untrusted } from '../xen/untrusted.ts';
import { parseGref, parsePort, parseU32, parseVersions } from '../xen/xenbus/parse.ts';
import type { XenstoreAccess } from '../xen/xenstore.ts';
import type { ShareId } from './share-id.ts';

/** The two ends of a share. */
export interface ShareEnds {
  readonly exporter: DomId;
  readonly importer: DomId;
}

/** Where the exporter's offers to the importer are. */
export function offersPath({ exporter, importer }: ShareEnds): string {
  return `/local/domain/${exporter}/${SHARE_ROOT}/${SHARE_OFFERS}/${importer}`;
}

/** Where the importer's answers to the exporter are. */
export function answersPath({ exporter, importer }: ShareEnds): string {
  return `/local/domain/${importer}/${SHARE_ROOT}/${SHARE_ANSWERS}/${exporter}`;
}

/** Makes a directory of `owner`'s that `reader` can read, with all that is made below it. @throws SysError */
export async function makeReadableBy(
  store: XenstoreAccess,
  path: string,
  { owner, reader }: { owner: DomId; reader: DomId },
): Promise<void> {
  await store.mkdir(path);
  await store.setPermissions(path, [
    { domid: owner, read: false, write: false },
    { domid: reader, read: true, write: false },
  ]);
}

export interface OfferNode {
  /** Of the protocol, that the exporter speaks. */
  readonly versions: readonly number[];
  /** The two pages of the offer. */
  readonly offerRefs: readonly [Gref, Gref];
  /** An unbound port for the importer. */
  readonly port: Port;
  /** Of the metadata: another number, other metadata. */
  readonly generation: number;
  /** The importer has so many milliseconds to close the share, from when it read this on. */
  readonly withdrawMs?: number;
  /** Which program of the exporter's domain it is of, in words of that domain's own. */
  readonly owner?: string;
}

/** Longer values than any that makes sense are not looked at. */
const VALUE_CHARS_MAX = 512;
const WORD = /^([a-z-]{1,32})=(\S{1,128})$/;

export function formatOffer(offer: OfferNode): string {
  const words = [
    `versions=${offer.versions.join(',')}`,
    `offer-refs=${offer.offerRefs.join(',')}`,
    `event-channel=${offer.port}`,
    `generation=${offer.generation}`,
  ];
  if (offer.owner !== undefined) words.push(`owner=${offer.owner}`);
  if (offer.withdrawMs !== undefined) words.push(`withdraw-ms=${offer.withdrawMs}`);
  return words.join(' ');
}

/** @throws ProtocolViolation `malformed-node`, `missing-node`, `out-of-range-node` */
export function parseOffer(value: Untrusted<string>, node: string): OfferNode {
  const words = check(value, (text) => wordsOf(text, node));
  const word = (name: string): Untrusted<string> => {
    const found = words.get(name);
    if (found !== undefined) return distrust(found);
    throw new ProtocolViolation('missing-node', 'XEN_ENOENT', `${node} says no ${name}`);
  };
  const offer = {
    versions: parseVersions(word('versions'), `${node} versions`),
    offerRefs: parseRefs(word('offer-refs'), `${node} offer-refs`),
    port: parsePort(word('event-channel'), `${node} event-channel`),
    generation: parseU32(word('generation'), `${node} generation`),
  };
  const owner = words.get('owner');
  const said = owner === undefined ? offer : { ...offer, owner };
  if (!words.has('withdraw-ms')) return said;
  return { ...said, withdrawMs: parseU32(word('withdraw-ms'), `${node} withdraw-ms`) };
}

function parseRefs(value: Untrusted<string>, node: string): OfferNode['offerRefs'] {
  return check(value, (text) => {
    const parts = text.split(',', 3);
    if (parts.length !== 2) throw malformed(node, 'two grant references are wanted');
    return [parseGref(distrust(parts[0]!), node), parseGref(distrust(parts[1]!), node)];
  });
}

function wordsOf(text: string, node: string): Map<string, string> {
  const words = new Map<string, string>();
  if (text.length > VALUE_CHARS_MAX) throw malformed(node, `${text.length} characters`);
  for (const part of text.split(' ')) {
    const match = WORD.exec(part);
    if (!match) throw malformed(node, `not a list of words: ${JSON.stringify(part.slice(0, 40))}`);
    words.set(match[1]!, match[2]!);
  }
  return words;
}

function malformed(node: string, detail: string): ProtocolViolation {
  return new ProtocolViolation('malformed-node', 'XEN_EINVAL', `${node}: ${detail}`);
}

/** What an importer says to an offer. */
export type Answer =
  | { readonly kind: 'accepted' }
  /** `reason`: in one word. */
  | { readonly kind: 'refused'; readonly reason: string };

export function formatAnswer(answer: Answer): string {
  return answer.kind === 'accepted' ? 'accepted' : `refused ${answer.reason}`;
}

/** @throws ProtocolViolation `malformed-node` */
export function parseAnswer(value: Untrusted<string>, node: string): Answer {
  return check(value, (text) => {
    if (text === 'accepted') return { kind: 'accepted' };
    const reason = /^refused ([a-z-]{1,32})$/.exec(text)?.[1];
    if (reason !== undefined) return { kind: 'refused', reason };
    throw malformed(node, 'neither accepted nor refused');
  });
}

/** The node of one share. */
export function nodeOf(directory: string, id: ShareId): string {
  return `${directory}/${id}`;
}
