// What a hostile backend does with the frontends that it was given, one act at a time: it goes along, so that it gets
// somewhere, and lies in answers, events, directories, indices, nodes and states.

import {
  XENDISPL_DBUF_FLG_REQ_ALLOC,
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_PG_FLIP,
} from '../../src/abi/displif.ts';
import { kbdInEvent, XENKBD_IN_EVENT_SIZE, XENKBD_TYPE_MTOUCH } from '../../src/abi/kbdif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { encodeKbdEvent, type KbdEvent } from '../../src/input/kbd-events.ts';
import type { Random } from '../../src/runtime/random.ts';
import type { Domain, SharedPages } from '../../src/xen/domain.ts';
import type { DomId, Gref } from '../../src/xen/ids.ts';
import { fillPageDirectory } from '../../src/xen/page-directory.ts';
import { between, happens, oneOf } from '../chance.ts';
import type { Acts } from './act-loop.ts';
import { INDICES, VALUES } from './acts.ts';
import {
  DISPLAY_NODES,
  KEYBOARD_NODES,
  RawBackend,
  type RawBackendWorld,
  type SeenRequest,
} from './raw-backend.ts';

export interface BackendHands {
  readonly random: Random;
  readonly domain: Domain;
  readonly world: RawBackendWorld;
  /** By the paths of their directories. */
  readonly backends: Map<string, RawBackend>;
  /** Pages that it has given to frontends as buffers. */
  readonly lent: SharedPages[];
}

export const DRIVEN_TYPES = ['vdispl', 'vkbd'] as const;
const LENT_MAX = 8;
const LENT_PAGES_MAX = 4;
const STORM_MAX = 200;
const INPUTS_MAX = 20;
const TOGGLES_MAX = 20;
/** One answer in so many is a refusal, a lie, never comes; one flip in so many is never complete. */
const REFUSE_ONE_IN = 12;
const LIE_ONE_IN = 40;
const FORGET_ONE_IN = 40;
const STATUSES = [-1, -12, -16, -22, -9999, -0x8000_0000] as const;
const KEYS = [
  'state',
  'versions',
  'feature-abs-pointer',
  'feature-multi-touch',
  'width',
  'height',
] as const;

function backendOf({ random, backends }: BackendHands): RawBackend | undefined {
  return backends.size > 0 ? oneOf(random, [...backends.values()]) : undefined;
}

function isDisplay({ device }: RawBackend): boolean {
  return device.frontendType === 'vdispl';
}

/** A display's backend, or a keyboard's, that has mapped what its frontend published. */
function attached(hands: BackendHands, display: boolean): RawBackend | undefined {
  const { backends, random } = hands;
  const fits = (backend: RawBackend) => backend.attached && isDisplay(backend) === display;
  const all = [...backends.values()].filter(fits);
  return all.length > 0 ? oneOf(random, all) : undefined;
}

/** Looks what the toolstack has given to it. */
async function findDevices(hands: BackendHands): Promise<void> {
  const { domain, backends, world } = hands;
  const { domid: backendDomid, store } = domain;
  const there = new Set<string>();
  for (const type of DRIVEN_TYPES) {
    const root = `/local/domain/${backendDomid}/backend/${type}`;
    for (const name of (await store.directory(root)) ?? []) {
      for (const number of (await store.directory(`${root}/${name}`)) ?? []) {
        const [domid, devid] = [Number(name) as DomId, Number(number)];
        const device = { backendDomid, domid, devid, backendType: type, frontendType: type };
        const backend = new RawBackend(world, { domain, device });
        there.add(backend.path);
        if (!backends.has(backend.path)) backends.set(backend.path, backend);
      }
    }
  }
  for (const [path, backend] of backends) {
    if (there.has(path)) continue;
    backends.delete(path);
    await backend.letGo();
  }
}

/** Does what the frontend's state asks for, as a backend should. */
async function goAlong(hands: BackendHands): Promise<void> {
  const backend = backendOf(hands);
  if (!backend) return findDevices(hands);
  const state = await backend.frontendNode('state');
  if (state === undefined) return findDevices(hands);
  if (state === '1') return backend.state('2');
  if (state === '3' && !backend.attached) {
    await backend.attach(isDisplay(backend) ? DISPLAY_NODES : KEYBOARD_NODES);
    return backend.state('4');
  }
  if (state !== '5' && state !== '6') return;
  await backend.letGo();
  await backend.state('6');
}

/** Answers all that was asked, mostly as it should. */
async function answer(hands: BackendHands): Promise<void> {
  const backend = attached(hands, true);
  for (const request of backend?.requests.splice(0) ?? []) {
    await answerOne(hands, backend!, request);
  }
}

async function answerOne(
  hands: BackendHands,
  backend: RawBackend,
  request: SeenRequest,
): Promise<void> {
  const { random } = hands;
  const { id, operation } = request;
  if (happens(random, FORGET_ONE_IN)) return;
  const lends = operation === XENDISPL_OP_DBUF_CREATE && request.directory !== 0;
  if (lends && (request.flags & XENDISPL_DBUF_FLG_REQ_ALLOC) !== 0) {
    await lend(hands, backend, request).catch(() => {});
  }
  const status = happens(random, REFUSE_ONE_IN) ? oneOf(random, STATUSES) : 0;
  if (happens(random, LIE_ONE_IN)) backend.answer(lieAbout(random, request));
  else backend.answer({ id, operation, status });
  if (operation !== XENDISPL_OP_PG_FLIP || happens(random, FORGET_ONE_IN)) return;
  backend.event({ id: backend.eventsSent & 0xffff });
}

function lieAbout(random: Random, { id, operation }: SeenRequest) {
  const lies = [
    { id: (id + 1) & 0xffff, operation, status: 0 },
    { id, operation: oneOf(random, [XENDISPL_OP_PG_FLIP, 0x42]), status: 0 },
    { id, operation, status: 22 },
  ];
  return oneOf(random, lies);
}

/** Names pages of its own where the frontend looks for them; or no pages at all. */
async function lend(
  { random, domain, lent }: BackendHands,
  { device: { domid } }: RawBackend,
  { directory: first, bufferBytes }: SeenRequest,
): Promise<void> {
  const wanted = Math.ceil(bufferBytes / PAGE_SIZE);
  if (lent.length >= LENT_MAX) await lent.shift()![Symbol.asyncDispose]();
  const pages = Math.min(wanted, LENT_PAGES_MAX);
  const shared = await domain.grants.share({ domid, pages, writable: !happens(random, 12) });
  lent.push(shared);
  const refs = Array.from({ length: wanted }, (_, page) => shared.refs[page % pages]!);
  if (happens(random, 8)) refs[random.below(refs.length)] = oneOf(random, INDICES) as Gref;
  await fillPageDirectory(domain.foreign, { domid, first, refs });
}

/** Something about flips that is not so. */
async function lieInEvents(hands: BackendHands): Promise<void> {
  const { random } = hands;
  const backend = attached(hands, true);
  if (!backend) return;
  const { eventsSent } = backend;
  if (happens(random, 3)) backend.eventProd(oneOf(random, INDICES));
  else if (happens(random, 2)) backend.event({ id: (eventsSent + 1) & 0xffff });
  else backend.event({ id: eventsSent & 0xffff, type: 1 + random.below(255) });
}

/** An event for a flip that nobody asked for. */
async function completeNothing(hands: BackendHands): Promise<void> {
  const backend = attached(hands, true);
  backend?.event({ id: backend.eventsSent & 0xffff, cookie: 0xdead_beefn });
}

async function indices(hands: BackendHands): Promise<void> {
  const { random } = hands;
  attached(hands, happens(random, 2))?.word(random.below(4), oneOf(random, INDICES));
}

/** Keys, movements and touches; some of them of no type, and beyond every bound. */
async function input(hands: BackendHands): Promise<void> {
  const { random } = hands;
  const backend = attached(hands, false);
  for (let left = between(random, 1, INPUTS_MAX); backend && left > 0; left--) {
    backend.inputEvent(inputBytes(random));
  }
}

function inputBytes(random: Random): Uint8Array {
  const bytes = new Uint8Array(XENKBD_IN_EVENT_SIZE);
  const slot = new DataView(bytes.buffer);
  if (happens(random, 12)) return random.bytes(XENKBD_IN_EVENT_SIZE);
  encodeKbdEvent(slot, inputEvent(random));
  const strange = happens(random, 12) && bytes[0] === XENKBD_TYPE_MTOUCH;
  if (strange) kbdInEvent.fields.mtouch.fields.event_type.set(slot, 0, random.below(256));
  return bytes;
}

function inputEvent(random: Random): KbdEvent {
  const [contact, x, y] = [random.below(4), random.below(100), random.below(100)];
  const wheel = random.below(3) - 1;
  return oneOf<KbdEvent>(random, [
    { kind: 'key', code: random.below(0x400), pressed: happens(random, 2) },
    { kind: 'motion', dx: x - 50, dy: y - 50, wheel },
    { kind: 'position', x, y, wheel },
    { kind: 'down', contact, x, y },
    { kind: 'move', contact, x, y },
    { kind: 'up', contact },
    { kind: 'sync', contact },
  ]);
}

async function scribble(hands: BackendHands): Promise<void> {
  const { random } = hands;
  const value = happens(random, 6) ? null : oneOf(random, VALUES);
  await backendOf(hands)?.node(oneOf(random, KEYS), value);
}

async function toggle(hands: BackendHands): Promise<void> {
  const { random } = hands;
  const backend = backendOf(hands);
  for (let left = between(random, 1, TOGGLES_MAX); backend && left > 0; left--) {
    await backend.state(String(random.below(9)));
  }
}

async function storm(hands: BackendHands): Promise<void> {
  const { random } = hands;
  const backend = attached(hands, happens(random, 2));
  for (let left = between(random, 1, STORM_MAX); backend && left > 0; left--) backend.notify();
}

/** Lets go without a word, and perhaps comes back. */
async function letGo(hands: BackendHands): Promise<void> {
  await backendOf(hands)?.letGo();
}

/** The whole directory, which is its own. */
async function removeNodes(hands: BackendHands): Promise<void> {
  const backend = backendOf(hands);
  if (backend) await hands.domain.store.remove(backend.path);
}

async function takeBack({ random, lent }: BackendHands): Promise<void> {
  const [pages] = lent.splice(random.below(Math.max(1, lent.length)), 1);
  await pages?.[Symbol.asyncDispose]();
}

/** The acts by name, with how often each is chosen. */
export const BACKEND_ACTS: Acts<BackendHands> = {
  findDevices: { act: findDevices, weight: 6 },
  goAlong: { act: goAlong, weight: 30 },
  answer: { act: answer, weight: 50 },
  input: { act: input, weight: 12 },
  completeNothing: { act: completeNothing, weight: 1 },
  lieInEvents: { act: lieInEvents, weight: 1 },
  indices: { act: indices, weight: 1 },
  scribble: { act: scribble, weight: 2 },
  toggle: { act: toggle, weight: 1 },
  storm: { act: storm, weight: 1 },
  letGo: { act: letGo, weight: 1 },
  removeNodes: { act: removeNodes, weight: 1 },
  takeBack: { act: takeBack, weight: 1 },
};
