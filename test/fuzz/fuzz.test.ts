// Every fuzzer for a moment, and every case that was ever found. Longer: `npm run fuzz`.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { keptCases } from './cases.ts';
import { FUZZERS } from './fuzzers.ts';

const SOURCES = fileURLToPath(new URL('../../../src/', import.meta.url));

for (const { name, input, check, runs, close } of FUZZERS) {
  test(`property: ${name} gives values or typed refusals, whatever comes`, async () => {
    try {
      await fc.assert(
        fc.asyncProperty(input, async (each) => void (await check(each))),
        {
          numRuns: runs,
        },
      );
    } finally {
      await close?.();
    }
  });

  for (const [file, kept] of keptCases(name)) {
    test(`found by ${name}: ${file}`, async () => {
      try {
        await check(kept.input);
      } finally {
        await close?.();
      }
    });
  }
}

test('every fuzzer has a name of its own, and its parsers are there', () => {
  const names = FUZZERS.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  const missing = FUZZERS.flatMap(({ parsers }) => parsers).filter(
    (file) => !existsSync(`${SOURCES}${file}`),
  );
  assert.deepEqual(missing, []);
});

/** Whether JSON has it as it is: a kept case must be the case that was found. */
function isPlain(value: unknown): boolean {
  if (typeof value === 'number') return Number.isFinite(value);
  if (typeof value !== 'object' || value === null) return typeof value !== 'bigint';
  return !ArrayBuffer.isView(value) && Object.values(value).every(isPlain);
}

test('inputs are JSON, so that what is replayed is what was found', () => {
  for (const { name, input } of FUZZERS) {
    for (const each of fc.sample(input, 50)) assert(isPlain(each), name);
  }
});
