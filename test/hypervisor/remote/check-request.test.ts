import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { checkRequest } from '../../../src/hypervisor/remote/check-request.ts';
import { checkMessage } from '../../../src/hypervisor/worker/check-message.ts';
import { ProtocolViolation } from '../../../src/runtime/errors.ts';

const malformed = (error: unknown) =>
  error instanceof ProtocolViolation && error.reason === 'malformed-hypercall';

const MAP = { domid: 0, refs: Uint32Array.of(8), writable: true, device: false, maxAreas: 1 };

test('whatever a guest sends is a hypercall or a violation, never anything else', () => {
  const noise = fc.anything({ withTypedArray: true, withBigInt: true, withNullPrototype: true });
  const call = fc.record({
    call: fc.oneof(
      fc.constantFrom('populate', 'mapGrants', 'decrease', 'closePort', 'shutdown'),
      fc.constantFrom('increase', 'exchange', 'openWindow'),
      fc.constantFrom('__proto__', 'constructor', 'toString'),
      fc.string(),
    ),
    id: fc.oneof(fc.nat(), noise),
    request: fc.oneof(noise, fc.dictionary(fc.constantFrom('pages', 'refs', 'domid'), noise)),
  });
  fc.assert(
    fc.property(fc.oneof(noise, call), (message) => {
      try {
        const checked = checkMessage(message);
        if ('call' in checked) checkRequest(checked.call, checked.request);
      } catch (error) {
        assert(malformed(error), String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('numbers out of range, arrays of any other kind, and batches without end are refused', () => {
  const refused: [Parameters<typeof checkRequest>[0], unknown][] = [
    ['populate', { pages: 0 }],
    ['populate', { pages: 1.5 }],
    ['populate', { pages: Number.NaN }],
    ['populate', { pages: 2 ** 32 }],
    ['populate', { pages: '1' }],
    ['populate', null],
    ['increase', { extents: 64 * 1024 + 1, extentOrder: 0, addressBits: 0 }],
    ['increase', { extents: 1, extentOrder: 21, addressBits: 0 }],
    ['increase', { extents: 1, extentOrder: 0, addressBits: 256 }],
    ['increase', { extents: 1, extentOrder: 0 }],
    ['decrease', { frames: [1, 2], extentOrder: 0 }],
    ['decrease', { frames: new Uint32Array(0), extentOrder: 0 }],
    ['decrease', { frames: new Uint32Array(64 * 1024 + 1), extentOrder: 0 }],
    ['decrease', { frames: Uint32Array.of(8), extentOrder: -1 }],
    ['exchange', { frames: Uint32Array.of(8), inOrder: 0, outOrder: 21, addressBits: 0 }],
    ['openWindow', { frames: [8] }],
    ['mapGrants', { ...MAP, domid: 0x7ff0 }],
    ['mapGrants', { ...MAP, writable: 1 }],
    ['mapGrants', { ...MAP, device: undefined }],
    ['mapGrants', { ...MAP, maxAreas: -1 }],
    ['showGrants', {}],
    ['allocUnbound', { remote: -1 }],
    ['closePort', {}],
    ['shutdown', { reason: 'suspend' }],
  ];
  for (const [name, request] of refused) {
    assert.throws(() => checkRequest(name, request), malformed, `${name}`);
  }
});

test('a request to map that is well-formed is taken', () => {
  assert.deepEqual(checkRequest('mapGrants', MAP), MAP);
});

test('refs in memory that the guest shares are copied before they are used', () => {
  const refs = new Uint32Array(new SharedArrayBuffer(8));
  refs.set([8, 9]);
  const checked = checkRequest('mapGrants', { ...MAP, refs });
  refs.set([1, 1]);
  assert.deepEqual([...checked.refs], [8, 9]);
});
