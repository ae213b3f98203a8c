import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeKbdEvent, encodeKbdEvent, type KbdEvent } from '../../src/input/kbd-events.ts';

const i32 = fc.integer({ min: -0x7fff_ffff, max: 0x7fff_ffff });
const contact = fc.nat(255);
const events: fc.Arbitrary<KbdEvent> = fc.oneof(
  fc.record({ kind: fc.constant('key' as const), code: fc.nat(0x2ff), pressed: fc.boolean() }),
  fc.record({ kind: fc.constant('motion' as const), dx: i32, dy: i32, wheel: i32 }),
  fc.record({ kind: fc.constant('position' as const), x: i32, y: i32, wheel: i32 }),
  fc.record({ kind: fc.constantFrom('down' as const, 'move' as const), contact, x: i32, y: i32 }),
  fc.record({ kind: fc.constantFrom('up' as const, 'sync' as const), contact }),
);

function slotOf(event: KbdEvent): DataView {
  const slot = new DataView(new Uint8Array(40).fill(0xee).buffer);
  encodeKbdEvent(slot, event);
  return slot;
}

test('property: what is written into a slot is what is read from it', () => {
  fc.assert(
    fc.property(events, (event) => {
      assert.deepEqual(decodeKbdEvent(slotOf(event)), { ...event });
    }),
  );
});

test('slots as xen-kbdfront reads them, every byte written', () => {
  const bytes = (event: KbdEvent) => Buffer.from(slotOf(event).buffer).toString('hex');
  const padded = (hex: string) => hex.padEnd(80, '0');
  assert.equal(bytes({ kind: 'key', code: 30, pressed: true }), padded('030100001e000000'));
  // One detent away from the user is rel_z -1, of which Linux makes REL_WHEEL 1.
  assert.equal(
    bytes({ kind: 'motion', dx: 2, dy: -3, wheel: 1 }),
    padded('0100000002000000fdffffffffffffff'),
  );
  assert.equal(
    bytes({ kind: 'position', x: 256, y: 1, wheel: 0 }),
    padded('040000000001000001000000'),
  );
  assert.equal(
    bytes({ kind: 'down', contact: 7, x: 5, y: 6 }),
    padded('05000700000000000500000006000000'),
  );
  assert.equal(bytes({ kind: 'up', contact: 7 }), padded('050107'));
  assert.equal(bytes({ kind: 'sync', contact: 7 }), padded('050307'));
});

test('what a frontend must ignore is ignored: other types, shapes, codes beyond KEY_MAX', () => {
  for (const head of ['00', '02', '06', 'ff', '050407', '050507', '05ff07', '0301000000030000']) {
    const slot = new DataView(new Uint8Array(Buffer.from(head.padEnd(80, '0'), 'hex')).buffer);
    assert.equal(decodeKbdEvent(slot), undefined, head);
  }
});
