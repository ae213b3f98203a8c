// Values of xenstore nodes: numbers, resolutions, versions, states, permissions, and what displays and keyboards
// publish.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { CONNECTORS_MAX } from '../../src/display/connector-number.ts';
import { checkVersion, readConnectors } from '../../src/display/published.ts';
import { publishOffer, readPublished } from '../../src/input/published.ts';
import { silentLogger } from '../../src/runtime/runtime.ts';
import { domId } from '../../src/xen/ids.ts';
import { distrust } from '../../src/xen/untrusted.ts';
import type { BackendDevice } from '../../src/xen/xenbus/driver.ts';
import {
  parseDomId,
  parseFlag,
  parseGref,
  parsePort,
  parseResolution,
  parseU32,
  parseVersion,
  parseVersions,
} from '../../src/xen/xenbus/parse.ts';
import { parseState } from '../../src/xen/xenbus/states.ts';
import { formatPermission, parsePermission } from '../../src/xen/xenstore-permission.ts';
import { fuzzer, orRefused, orRefusedLater, u32 } from './fuzzer.ts';

const decimal = fc
  .oneof(u32, fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }))
  .map(String);
const odd = fc.constantFrom('', '0x10', '1e3', '-1', '+1', '01', ' 1', '1 ', '١', '1,2', 'x', '1x');
const nasty = fc.constantFrom('\0', '\n1', '9'.repeat(300), '4294967296', '18446744073709551616');
const value = fc.oneof(
  { weight: 4, arbitrary: decimal },
  odd,
  nasty,
  fc.string({ maxLength: 20 }),
  fc.tuple(decimal, decimal).map(([a, b]) => `${a}x${b}`),
  fc.array(decimal, { maxLength: 20 }).map((parts) => parts.join(',')),
  fc.stringMatching(/^[nrwb]\d{1,6}$/),
);

/** Each parser gives a value whose only spelling is the input, or refuses. */
export const nodeValues = fuzzer({
  name: 'node-values',
  parsers: ['xen/xenbus/parse.ts', 'xen/xenbus/states.ts', 'xen/xenstore-permission.ts'],
  runs: 3000,
  input: value,
  check: (text) => {
    const node = distrust(text);
    const number = orRefused(() => parseU32(node, 'node'));
    if (number !== undefined) assert.equal(String(number), text);
    const ranged = orRefused(() => parseU32(node, 'node', { min: 3, max: 9 }));
    assert(ranged === undefined || (ranged >= 3 && ranged <= 9));
    for (const parse of [parseGref, parsePort]) {
      const positive = orRefused(() => parse(node, 'node'));
      assert.equal(positive, number === 0 ? undefined : number);
    }
    const domid = orRefused(() => parseDomId(node, 'node'));
    assert(domid === undefined || domid < 0x7ff0);
    assert.equal(parseFlag(node), text === '1');
    const size = orRefused(() => parseResolution(node, 'node', 32767));
    if (size) {
      assert.equal(`${size.width}x${size.height}`, text);
      assert(Math.min(size.width, size.height) > 0 && Math.max(size.width, size.height) <= 32767);
    }
    const versions = orRefused(() => parseVersions(node, 'node'));
    if (versions) assert.equal(versions.join(','), text);
    const version = orRefused(() => parseVersion(node, 'node', { offered: [1, 2], whenAbsent: 1 }));
    assert(version === undefined || String(version) === text);
    assert.equal(parseVersion(undefined, 'node', { offered: [2], whenAbsent: 1 }), 1);
    assert.equal(parseState(undefined), 0);
    const state = parseState(node);
    assert(state === 0 || String(state) === text);
    const permission = parsePermission(text);
    if (permission) assert.equal(Number(formatPermission(permission).slice(1)), permission.domid);
  },
});

/** A device whose frontend has published this. */
function deviceOf(
  frontend: Readonly<Record<string, string>>,
  backend: Record<string, string>,
): BackendDevice {
  const own = new Map(Object.entries(backend));
  return {
    readFrontend: async (key: string) =>
      Object.hasOwn(frontend, key) ? distrust(frontend[key]!) : undefined,
    readBackend: async (key: string) => own.get(key),
    writeBackend: async (key: string, text: string) => void own.set(key, text),
    log: silentLogger(),
    guest: {
      domid: domId(1),
      domain: { store: { read: async () => frontend['0/resolution'] } },
    },
  } as unknown as BackendDevice;
}

const CONNECTOR_KEYS = [
  'resolution',
  'unique-id',
  'req-ring-ref',
  'req-event-channel',
  'evt-ring-ref',
  'evt-event-channel',
];
/** Those that the guest writes. */
const PUBLISHED_KEYS = CONNECTOR_KEYS.slice(2);
/** Mostly right, so that what comes after a right one is reached. */
const mostly = (right: string) =>
  fc.oneof({ weight: 12, arbitrary: fc.constant(right) }, { weight: 1, arbitrary: value });
const connector = fc.record({
  resolution: mostly('64x48'),
  'unique-id': fc.oneof(mostly('screen'), fc.string({ maxLength: 300 })),
  'req-ring-ref': mostly('8'),
  'req-event-channel': mostly('3'),
  'evt-ring-ref': mostly('9'),
  'evt-event-channel': mostly('4'),
  missing: fc.subarray(CONNECTOR_KEYS, { maxLength: 3 }),
  none: fc.nat(8).map((roll) => roll === 0),
  unpublished: fc.nat(8).map((roll) => roll === 0),
});

/** The connectors that come of it are whole, in a row, and no more than there may be. */
export const displayNodes = fuzzer({
  name: 'display-nodes',
  parsers: ['display/published.ts'],
  runs: 500,
  input: fc.record({
    connectors: fc.array(connector, { maxLength: 20 }),
    version: fc.option(fc.oneof(fc.constant('1'), value), { nil: undefined }),
  }),
  check: async ({ connectors, version }) => {
    const nodes: Record<string, string> = version === undefined ? {} : { version };
    connectors.forEach(({ missing, none, unpublished, ...keys }, index) => {
      const absent = unpublished ? PUBLISHED_KEYS : missing;
      for (const [key, text] of Object.entries(keys)) {
        if (!none && !absent.includes(key)) nodes[`${index}/${key}`] = text;
      }
    });
    const device = deviceOf(nodes, {});
    await orRefusedLater(() => checkVersion(device));
    const read = await orRefusedLater(() => readConnectors(device));
    if (!read) return;
    assert(read.length >= 1 && read.length <= CONNECTORS_MAX);
    for (const [index, each] of read.entries()) {
      assert.equal(each.index, index);
      assert(each.controlRing > 0 && each.eventPage > 0 && each.controlPort > 0);
      assert(each.uniqueId.length <= 256);
    }
  },
});

const KEYBOARD_BACKEND = [
  'feature-abs-pointer',
  'feature-raw-pointer',
  'feature-multi-touch',
  'feature-disable-pointer',
  'width',
  'height',
  'multi-touch-width',
  'multi-touch-height',
  'multi-touch-num-contacts',
];

/** An offer and the wishes that go with it, or a refusal. */
export const keyboardNodes = fuzzer({
  name: 'keyboard-nodes',
  parsers: ['input/published.ts'],
  runs: 500,
  input: fc.record({
    frontend: fc.record(
      {
        'page-gref': mostly('8'),
        'event-channel': mostly('3'),
        'request-abs-pointer': mostly('1'),
        'request-raw-pointer': mostly('1'),
        'request-multi-touch': mostly('1'),
        '0/resolution': fc.oneof(mostly('64x48'), value),
      },
      { requiredKeys: [], noNullPrototype: true },
    ),
    backend: fc.dictionary(
      fc.constantFrom(...KEYBOARD_BACKEND),
      fc.oneof(mostly('1'), fc.constant('0')),
      {
        maxKeys: 6,
        noNullPrototype: true,
      },
    ),
  }),
  check: async ({ frontend, backend }) => {
    const device = deviceOf(frontend as Record<string, string>, backend);
    const offer = await orRefusedLater(() => publishOffer(device));
    if (!offer) return;
    assert(offer.touch === undefined || offer.touch.contacts <= 256);
    const published = await orRefusedLater(() => readPublished(device));
    if (!published) return;
    const { page, port, wishes } = published;
    assert(page > 0 && port > 0 && (!wishes.raw || wishes.absolute));
  },
});
