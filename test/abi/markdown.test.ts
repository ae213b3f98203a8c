// The reference for people has every declaration in it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { headers } from '../../src/abi/index.ts';
import { abiMarkdown } from '../../src/abi/markdown.ts';

test('every header, struct, field and constant is in the reference', () => {
  const lines = new Set(abiMarkdown('arm64').split('\n'));
  const cells = new Set([...lines].flatMap((line) => line.split(' | ')));
  for (const { include, layouts, constants, strings } of headers('arm64')) {
    assert.ok(lines.has(`## ${include}`), include);
    for (const name of [...constants.keys(), ...strings.keys()]) {
      assert.ok(cells.has(`| ${name}`), name);
    }
    for (const { kind, name, specs } of layouts) {
      assert.ok(lines.has(`### ${kind} ${name}`), name);
      for (const field of Object.keys(specs)) assert.ok(cells.has(field), `${name}.${field}`);
    }
  }
});

test('a row says where the field is, what it is and what it means', () => {
  const lines = abiMarkdown('x86_64').split('\n');
  assert.ok(
    lines.includes('| 28 | 4 | uint32_t | gref_directory | first page of the page directory |'),
  );
  assert.ok(lines.includes('| 12 | 4 | int32_t | u.pos.abs_y | 0 to multi-touch-height - 1 |'));
  assert.ok(lines.includes('| IOCTL_GNTDEV_MAP_GRANT_REF | 0x184700 (1591040) |'));
});
