// What a hostile guest does, one act at a time: with its rings, its page directories, its grants, its memory, its
// event channels and its part of xenstore. Each act is complete in itself, so that any of them can be left out.

import { GTF_permit_access } from '../../src/abi/grant-table.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { WORDS_PER_GRANT, wordsOf } from '../../src/hypervisor/grant-table.ts';
import type { HypercallPort } from '../../src/hypervisor/hypercalls.ts';
import type { Random } from '../../src/runtime/random.ts';
import type { Domain, EventChannel, ForeignMapping, SharedPages } from '../../src/xen/domain.ts';
import { DOM0, type DomId, type Gref, type Port } from '../../src/xen/ids.ts';
import { offerPageDirectory, writePageDirectory } from '../../src/xen/page-directory.ts';
import { between, happens, oneOf } from '../chance.ts';
import type { Acts } from './act-loop.ts';
import type { RawConnector, RawFrontend } from './raw-frontend.ts';
import type { Directory, RequestGenerator } from './requests.ts';

/** What the acts are done with. */
export interface Hands {
  readonly random: Random;
  readonly domain: Domain;
  /** Straight to the hypervisor. */
  readonly calls: HypercallPort;
  readonly raw: RawFrontend;
  readonly requests: RequestGenerator;
  readonly keyboard: { page: SharedPages; channel: EventChannel } | undefined;
  /** What it has laid out for buffers, and mapped of others. */
  readonly laidOut: SharedPages[];
  readonly directories: Directory[];
  readonly mapped: ForeignMapping[];
  readonly windows: number[];
}

const LAID_OUT_MAX = 12;
const MAPPED_MAX = 12;
const BURST_MAX = 40;
const STORM_MAX = 300;
const NODES_MAX = 40;
const TOGGLES_MAX = 30;
/** Indices and words at the edges of what they can be. */
export const INDICES = [
  0, 1, 31, 32, 33, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff,
] as const;
/** What nodes may say, and mostly should not. */
export const VALUES = [
  '',
  '0',
  '1',
  '-1',
  '9',
  '8 ',
  '0x9',
  '1e9',
  '4294967296',
  '99999999999',
  'Ü',
  '1,2',
  '7',
  '7'.repeat(300),
  '1,'.repeat(40),
] as const;
const DISPLAY_KEYS = [
  'req-ring-ref',
  'req-event-channel',
  'evt-ring-ref',
  'evt-event-channel',
] as const;
const OWN_KEYS = [
  'vdispl/0/state',
  'vdispl/0/version',
  'vkbd/0/state',
  'vkbd/0/page-gref',
  'vkbd/0/event-channel',
  'vkbd/0/request-multi-touch',
  'vkbd/0/request-abs-pointer',
  'vkbd/0/request-raw-pointer',
] as const;

function connectorOf({ raw, random }: Hands): RawConnector | undefined {
  return raw.connectors.length > 0 ? oneOf(random, raw.connectors) : undefined;
}

/** Pages with a directory of theirs, or a directory for the backend to fill. */
async function layOut(hands: Hands): Promise<void> {
  const { domain, random, laidOut, directories } = hands;
  if (laidOut.length >= LAID_OUT_MAX) return takeBack(hands);
  const pages = between(random, 1, 4);
  if (happens(random, 3)) {
    const directory = await offerPageDirectory(domain.grants, { domid: DOM0, pages });
    laidOut.push(directory);
    directories.push({ first: directory.refs[0]!, pages, empty: true });
    return;
  }
  const buffer = await domain.grants.share({ domid: DOM0, pages, writable: happens(random, 2) });
  const refs = happens(random, 6) ? buffer.refs.map(() => buffer.refs[0]!) : buffer.refs;
  const directory = await writePageDirectory(domain.grants, { domid: DOM0, refs });
  laidOut.push(buffer, directory);
  directories.push({ first: directory.refs[0]!, pages, empty: false });
}

/** Gives pages up, whether or not the backend has them. */
async function takeBack({ laidOut, directories, random }: Hands): Promise<void> {
  const [pages] = laidOut.splice(random.below(Math.max(1, laidOut.length)), 1);
  if (!pages) return;
  const at = directories.findIndex(({ first }) => pages.refs[0] === first);
  if (at >= 0) directories.splice(at, 1);
  await pages[Symbol.asyncDispose]();
}

async function request(hands: Hands): Promise<void> {
  const connector = connectorOf(hands);
  if (!connector || hands.directories.length === 0) return layOut(hands);
  connector.put(hands.requests.next(hands.directories));
  connector.push();
}

async function burst(hands: Hands): Promise<void> {
  const connector = connectorOf(hands);
  if (!connector || hands.directories.length === 0) return;
  for (let left = between(hands.random, 1, BURST_MAX); left > 0; left--) {
    connector.put(hands.requests.next(hands.directories));
  }
  connector.push();
}

/** A slot that is changed after it was sent. */
async function mutate(hands: Hands): Promise<void> {
  await request(hands);
  const connector = connectorOf(hands);
  if (!connector) return;
  for (let left = 16; left > 0; left--) {
    connector.control[64 + hands.random.below(PAGE_SIZE - 64)] = hands.random.below(256);
  }
}

async function indices(hands: Hands): Promise<void> {
  const connector = connectorOf(hands);
  if (!connector) return;
  connector.words[hands.random.below(4)] = oneOf(hands.random, INDICES);
  connector.notify();
}

async function eventIndices(hands: Hands): Promise<void> {
  const page = happens(hands.random, 2) ? connectorOf(hands)?.events : hands.keyboard?.page.bytes;
  if (!page) return;
  new Uint32Array(page.buffer, page.byteOffset, 4)[hands.random.below(4)] = oneOf(
    hands.random,
    INDICES,
  );
  hands.keyboard?.channel.notify();
}

/** References in a directory that are changed when it may be in use. */
async function mutateDirectory({ laidOut, random }: Hands): Promise<void> {
  if (laidOut.length === 0) return;
  const pages = oneOf(random, laidOut);
  const words = new Uint32Array(pages.bytes.buffer, pages.bytes.byteOffset, 16);
  words[random.below(6)] = happens(random, 2)
    ? oneOf(random, INDICES)
    : oneOf(random, laidOut).refs[0]!;
}

/** Maps what the backend wrote into a directory, and keeps it. */
async function mapLent(hands: Hands): Promise<void> {
  const { domain, random, laidOut, mapped, directories } = hands;
  if (mapped.length >= MAPPED_MAX) return unmapSome(hands);
  const directory = directories.find(({ empty }) => empty);
  const pages = laidOut.find(({ refs }) => refs[0] === directory?.first);
  if (!directory || !pages) return layOut(hands);
  const words = new Uint32Array(pages.bytes.buffer, pages.bytes.byteOffset, 2 + directory.pages);
  const refs = [...words.subarray(1, 1 + directory.pages)] as Gref[];
  const writable = happens(random, 2);
  const mapping = await domain.foreign.map({ domid: DOM0, refs, writable });
  mapped.push(mapping);
  if (writable) mapping.bytes.fill(random.below(256));
}

async function unmapSome({ mapped, random }: Hands): Promise<void> {
  const [mapping] = mapped.splice(random.below(Math.max(1, mapped.length)), 1);
  await mapping?.[Symbol.asyncDispose]();
}

/** Tries to map pages that others granted to others, or to nobody. */
async function mapOthers({ calls, random, windows }: Hands): Promise<void> {
  const refs = Uint32Array.from({ length: between(random, 1, 6) }, () => random.below(48));
  const domid = random.below(8) as DomId;
  const maxAreas = refs.length;
  const request = { domid, refs, writable: happens(random, 2), device: false, maxAreas };
  const { window } = await calls.call('mapGrants', request);
  windows.push(window);
  if (windows.length > MAPPED_MAX) await calls.call('unmapGrants', { window: windows.shift()! });
}

/** Makes an entry of its grant table say something else, while it may be mapped. */
async function rewriteGrant({ calls, random }: Hands): Promise<void> {
  const words = wordsOf(calls.grantTable.subarray(0, PAGE_SIZE));
  const entry = (8 + random.below(40)) * WORDS_PER_GRANT;
  if (happens(random, 2)) words[entry + 1] = random.below(1100);
  else
    words[entry] = happens(random, 2)
      ? 0
      : (random.below(8) << 16) | GTF_permit_access | (random.below(8) << 2);
}

/** Gives memory back to Xen that it has granted, or does not have. */
async function giveUpFrames({ calls, random }: Hands): Promise<void> {
  const words = wordsOf(calls.grantTable.subarray(0, PAGE_SIZE));
  const frame = words[(8 + random.below(40)) * WORDS_PER_GRANT + 1]!;
  const frames = Uint32Array.of(happens(random, 4) ? random.below(1024) : frame);
  await calls.call('decrease', { frames, extentOrder: 0 });
}

async function hoard({ calls, random }: Hands): Promise<void> {
  await calls.call('increase', { extents: between(random, 1, 8), extentOrder: 0, addressBits: 0 });
}

async function storm(hands: Hands): Promise<void> {
  const { random, calls } = hands;
  const connector = connectorOf(hands);
  for (let left = between(random, 1, STORM_MAX); left > 0; left--) {
    if (connector && happens(random, 2)) connector.notify();
    else calls.notify(random.below(12) as Port);
  }
}

async function closePort({ calls, random }: Hands): Promise<void> {
  // Port 1 is xenstore's: without it the guest could not be hostile there any more.
  await calls.call('closePort', { port: between(random, 2, 12) as Port });
}

async function bindOthers({ calls, random }: Hands): Promise<void> {
  const remote = random.below(8) as DomId;
  await calls.call('bindInterdomain', { remote, remotePort: random.below(16) as Port });
}

function deviceNode({ domain }: Hands, key: string): string {
  return `/local/domain/${domain.domid}/device/${key}`;
}

async function scribble(hands: Hands): Promise<void> {
  const { random, domain } = hands;
  const display = `vdispl/0/${random.below(2)}/${oneOf(random, DISPLAY_KEYS)}`;
  const key = happens(random, 2) ? display : oneOf(random, OWN_KEYS);
  await domain.store.write(deviceNode(hands, key), oneOf(random, VALUES));
}

async function toggleState(hands: Hands): Promise<void> {
  const device = happens(hands.random, 3) ? 'vkbd/0/state' : 'vdispl/0/state';
  for (let left = between(hands.random, 1, TOGGLES_MAX); left > 0; left--) {
    await hands.domain.store.write(deviceNode(hands, device), String(hands.random.below(10)));
  }
}

/** The next time that it publishes, it does not say what is so. */
async function spoil({ raw, random }: Hands): Promise<void> {
  const key = `0/${oneOf(random, DISPLAY_KEYS)}`;
  const node = happens(random, 3) ? 'version' : key;
  raw.spoil = happens(random, 2)
    ? {}
    : { [node]: happens(random, 3) ? null : oneOf(random, VALUES) };
}

async function removeNodes(hands: Hands): Promise<void> {
  const keys = ['vdispl/0', 'vdispl/0/0', 'vdispl/0/state', 'vkbd/0', 'vkbd/0/page-gref'];
  await hands.domain.store.remove(deviceNode(hands, oneOf(hands.random, keys)));
}

async function manyNodes(hands: Hands): Promise<void> {
  const { random, domain } = hands;
  for (let left = between(random, 1, NODES_MAX); left > 0; left--) {
    await domain.store.write(
      deviceNode(hands, `vdispl/0/x${random.below(1000)}`),
      'x'.repeat(random.below(600)),
    );
  }
}

async function forbid(hands: Hands): Promise<void> {
  const { random, domain } = hands;
  const permissions = [{ domid: domain.domid as DomId, read: false, write: false }];
  const key = oneOf(random, ['vdispl/0', 'vdispl/0/state', 'vkbd/0/page-gref']);
  await domain.store.setPermissions(deviceNode(hands, key), permissions);
}

/** The acts by name, with how often each is chosen. */
export const ACTS: Acts<Hands> = {
  layOut: { act: layOut, weight: 10 },
  takeBack: { act: takeBack, weight: 3 },
  request: { act: request, weight: 40 },
  burst: { act: burst, weight: 8 },
  mutate: { act: mutate, weight: 4 },
  indices: { act: indices, weight: 2 },
  eventIndices: { act: eventIndices, weight: 2 },
  mutateDirectory: { act: mutateDirectory, weight: 4 },
  mapLent: { act: mapLent, weight: 6 },
  unmapSome: { act: unmapSome, weight: 2 },
  mapOthers: { act: mapOthers, weight: 3 },
  rewriteGrant: { act: rewriteGrant, weight: 3 },
  giveUpFrames: { act: giveUpFrames, weight: 2 },
  hoard: { act: hoard, weight: 1 },
  storm: { act: storm, weight: 2 },
  closePort: { act: closePort, weight: 1 },
  bindOthers: { act: bindOthers, weight: 1 },
  scribble: { act: scribble, weight: 3 },
  toggleState: { act: toggleState, weight: 3 },
  spoil: { act: spoil, weight: 1 },
  removeNodes: { act: removeNodes, weight: 1 },
  manyNodes: { act: manyNodes, weight: 1 },
  forbid: { act: forbid, weight: 1 },
};
