// The lab's arithmetic about vkms, without a vkms: that its numbers are the real ones is what a scenario proves.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expectedCrc, expectedReadback } from '../../lab/vkms.ts';

test('a black screen has the checksum that a real vkms once gave for one', () => {
  const pixels = new Uint8Array(1024 * 768 * 4);
  assert.equal(expectedCrc({ format: 'XR24', pixels }), 0x4c4126bf);
});

test('alpha and the unused byte change nothing', () => {
  const opaque = Uint8Array.of(1, 2, 3, 0xff);
  const clear = Uint8Array.of(1, 2, 3, 0);
  const wanted = expectedCrc({ format: 'XR24', pixels: opaque });
  for (const format of ['XR24', 'AR24'] as const) {
    for (const pixels of [opaque, clear]) assert.equal(expectedCrc({ format, pixels }), wanted);
  }
  assert.deepEqual([...expectedReadback({ format: 'AR24', pixels: clear })], [1, 2, 3, 0xff]);
});

test('white and black are the same in every format', () => {
  for (const byte of [0, 0xff]) {
    const four = Uint8Array.of(byte, byte, byte, byte);
    const two = Uint8Array.of(byte, byte);
    const wide = { format: 'XR24', pixels: four } as const;
    const narrow = { format: 'RG16', pixels: two } as const;
    assert.equal(expectedCrc(wide), expectedCrc(narrow));
    assert.deepEqual(expectedReadback(wide), expectedReadback(narrow));
  }
});
