// What other processes of the machine send: framed messages, and the hypercalls in them.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { checkEnter, checkFromProcess } from '../../src/hypervisor/process/messages.ts';
import { decodeMessage, encodeMessage, MessageReader } from '../../src/hypervisor/process/wire.ts';
import { checkRequest } from '../../src/hypervisor/remote/check-request.ts';
import { type Edits, edit, edits, fuzzer, orRefused, u32 } from './fuzzer.ts';

const MESSAGE_MAX = 4096;

/** Arrays go as numbers behind a mark, so that the input stays JSON. */
const array = fc.oneof(
  fc.record({ $u32: fc.array(u32, { maxLength: 6 }) }),
  fc.record({ $i16: fc.array(fc.integer({ min: -32768, max: 32767 }), { maxLength: 6 }) }),
);
const field = fc.oneof(
  u32,
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.boolean(),
  fc.constant(null),
  fc.string({ maxLength: 8 }),
  array,
  fc.array(fc.nat(), { maxLength: 3 }),
  fc.constantFrom('poweroff', 'reboot', 'crash', 'x'.repeat(5000)),
);
const FIELDS = [
  'pages',
  'extents',
  'extentOrder',
  'addressBits',
  'frames',
  'inOrder',
  'outOrder',
  'window',
  'domid',
  'refs',
  'writable',
  'device',
  'remote',
  'remotePort',
  'port',
  'reason',
];
const CALLS = [
  'populate',
  'increase',
  'decrease',
  'exchange',
  'openWindow',
  'closeWindow',
  'setupGrantTable',
  'mapGrants',
  'unmapGrants',
  'allocUnbound',
  'bindInterdomain',
  'closePort',
  'shutdown',
];
/** Fields of the right kind, by name, of which a call takes those it knows. */
const goodFields = fc.record({
  pages: fc.integer({ min: 1, max: 9 }),
  extents: fc.integer({ min: 1, max: 9 }),
  extentOrder: fc.nat(9),
  addressBits: fc.nat(64),
  frames: fc.record({ $u32: fc.array(u32, { minLength: 1, maxLength: 5 }) }),
  inOrder: fc.nat(9),
  outOrder: fc.nat(9),
  window: fc.nat(9),
  domid: fc.nat(9),
  refs: fc.record({ $u32: fc.array(u32, { minLength: 1, maxLength: 5 }) }),
  writable: fc.boolean(),
  device: fc.boolean(),
  remote: fc.nat(9),
  remotePort: fc.nat(9),
  port: fc.nat(9),
  reason: fc.constantFrom('poweroff', 'reboot', 'crash'),
});
const callFields = fc
  .tuple(
    goodFields,
    fc.dictionary(fc.constantFrom(...FIELDS), field, { maxKeys: 2, noNullPrototype: true }),
  )
  .map(([good, bad]) => ({ ...good, ...bad }));
const request = fc.oneof({ weight: 6, arbitrary: callFields }, { weight: 1, arbitrary: field });
const message = fc.oneof(
  fc.record({
    call: fc.oneof(fc.constantFrom(...CALLS, 'toString'), field),
    id: fc.oneof(fc.nat(), field),
    request,
  }),
  fc.record({ lookUp: field, name: field, wait: field }),
  fc.record({ lookUp: fc.nat(), name: fc.string({ maxLength: 20 }), wait: fc.boolean() }),
  fc.record({ forget: fc.oneof(fc.nat(), field) }),
  fc.record({
    enter: fc.oneof(fc.string({ maxLength: 20 }), field),
    version: fc.oneof(fc.nat(3), field),
  }),
  field,
);

/** The message with its arrays. */
function revived(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Object.hasOwn(value, '$u32')) {
    return Uint32Array.from((value as { $u32: number[] }).$u32.map((word) => word >>> 0));
  }
  if (Object.hasOwn(value, '$i16')) return Int16Array.from((value as { $i16: number[] }).$i16);
  if (Array.isArray(value)) return value.map(revived);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, revived(each)]));
}

interface Sent {
  readonly message: unknown;
  readonly edits: Edits;
}

/** Bytes are cut into messages, and messages into calls, or refused; nothing is larger than what came. */
export const processWire = fuzzer({
  name: 'process-wire',
  parsers: [
    'hypervisor/process/wire.ts',
    'hypervisor/process/messages.ts',
    'hypervisor/remote/check-request.ts',
    'hypervisor/remote/checks.ts',
  ],
  runs: 1500,
  input: fc.record({
    sent: fc.array(
      fc.record({
        message,
        edits: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, edits(60, 3)),
      }) as fc.Arbitrary<Sent>,
      { minLength: 1, maxLength: 3 },
    ),
    garbage: fc.array(fc.nat(255), { maxLength: 12 }),
    piece: fc.integer({ min: 1, max: 50 }),
  }),
  check: ({ sent, garbage, piece }) => {
    const stream = Buffer.concat([
      ...sent.map((each) => edit(Buffer.from(encodeMessage(revived(each.message))), each.edits)),
      Uint8Array.from(garbage),
    ]);
    const reader = new MessageReader(MESSAGE_MAX);
    for (let at = 0; at < stream.length; at += piece) {
      let rest: Uint8Array = stream.subarray(at, at + piece);
      while (rest.length > 0) {
        const taken = orRefused(() => reader.take(rest));
        if (!taken) return;
        assert(taken.rest.length < rest.length, 'it does not go on');
        rest = taken.rest;
        if (taken.whole) useMessage(taken.whole);
      }
    }
  },
});

function useMessage(bytes: Uint8Array): void {
  const decoded = orRefused(() => ({ message: decodeMessage(bytes) }));
  if (!decoded) return;
  orRefused(() => checkEnter(decoded.message));
  const from = orRefused(() => checkFromProcess(decoded.message));
  if (!from || !('call' in from)) return;
  const checked = orRefused(() => checkRequest(from.call, from.request));
  if (!checked) return;
  for (const value of Object.values(checked)) {
    if (typeof value === 'number') assert(Number.isInteger(value) && value >= 0 && value < 2 ** 32);
  }
}
