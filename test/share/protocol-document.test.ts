// docs/share-protocol.md against the declarations: every field of every struct, and the numbers it names.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as abi from '../../src/abi/share.ts';

const text = readFileSync(
  fileURLToPath(new URL('../../../docs/share-protocol.md', import.meta.url)),
  'utf8',
);

/** The table that follows the first mention of `struct NAME`. */
function tableOf(name: string): string[] {
  const from = text.indexOf(`\`struct ${name}\``);
  assert(from >= 0, `struct ${name} is not described`);
  const lines = text.slice(from).split('\n').slice(1);
  const start = lines.findIndex((line) => line.startsWith('|'));
  const end = lines.findIndex((line, index) => index > start && !line.startsWith('|'));
  return lines.slice(start + 2, end);
}

for (const layout of [abi.shareOffer, abi.shareFrame, abi.shareControl, abi.shareMetadata]) {
  test(`struct ${layout.name} is described as it is declared`, () => {
    const rows = Object.entries(layout.specs).map(
      ([name, [offset, type, doc]]) => `| ${offset} | ${type.size} | \`${name}\` | ${doc} |`,
    );
    assert.deepEqual(tableOf(layout.name), rows);
  });
}

test('the numbers of the text are the declared ones', () => {
  const numbers: readonly (readonly [number, string])[] = [
    [abi.SHARE_MAGIC, '`magic` is 0x48535a58'],
    [abi.SHARE_FLAG_WRITABLE, '1 SHARE_FLAG_WRITABLE'],
    [abi.SHARE_FLAG_STREAM, '2 SHARE_FLAG_STREAM'],
    [abi.SHARE_PAGES_MAX, 'at most\n1,048,576'],
    [abi.SHARE_STATES_OFFSET, 'From byte 64 on: the state of each slot'],
    [abi.SHARE_FRAMES_OFFSET, 'byte 2048 + 32·`i`'],
    [abi.SHARE_DIRECTORY_REFS, '1024 references of data pages'],
    [abi.SHARE_METADATA_MAX, 'at most 4096'],
    [abi.SHARE_SLOTS_MAX, '1 to 64'],
    [abi.SHARE_ATTACHED_ACCEPTED, '1 accepted'],
    [abi.SHARE_ATTACHED_REFUSED, '2 refused'],
    [abi.SHARE_SLOT_FREE, '0 free'],
    [abi.SHARE_SLOT_READY, '1 ready'],
    [abi.SHARE_SLOT_HELD, '2 held'],
    [abi.SHARE_TYPE_BYTES, '0 bytes'],
    [abi.SHARE_TYPE_PICTURE, '1 a picture'],
    [abi.SHARE_VERSION, '# The share protocol, version 1'],
  ];
  for (const [value, phrase] of numbers) {
    assert(text.includes(phrase), `the text does not say: ${phrase}`);
    const said = [...phrase.matchAll(/0x[0-9a-f]+|\d[\d,]*/g)].map(([digits]) =>
      Number(digits.replaceAll(',', '')),
    );
    assert(said.includes(value), `${phrase}, where ${value} is declared`);
  }
  for (const name of [abi.SHARE_OFFERS, abi.SHARE_ANSWERS]) {
    assert(text.includes(`${abi.SHARE_ROOT}/${name}/`), name);
  }
});
