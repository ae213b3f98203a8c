// `xen-zcopy sim`, as a program.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const COMMAND = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

async function sim(...words: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [COMMAND, 'sim', ...words]);
  return stdout;
}

test('a seed prints the same report twice, as one line of JSON, and succeeds', async () => {
  const words = ['--seed', '7', '--steps', '6000', '--json'];
  const reports = [JSON.parse(await sim(...words)), JSON.parse(await sim(...words))];
  const { stepsPerSecond, ...first } = reports[0];
  assert(stepsPerSecond > 0);
  assert.deepEqual({ ...reports[1], stepsPerSecond }, { ...first, stepsPerSecond });
  assert.deepEqual(Object.keys(reports[0]), [
    'seed',
    'steps',
    'stepsPerSecond',
    'guests',
    'faults',
    'violations',
    'digest',
  ]);
  assert.equal(first.seed, 7);
  assert.equal(first.steps, 6000);
  assert.deepEqual(first.violations, []);
  assert.match(first.digest, /^[0-9a-f]{16}$/);
});

test('what is no seed and no number of steps is a mistake of usage', async () => {
  for (const words of [
    ['--seed', '-1'],
    ['--seed', 'x'],
    ['--steps', '0'],
    ['--steps', '1.5'],
  ]) {
    await assert.rejects(sim(...words), { code: 2 });
  }
});
