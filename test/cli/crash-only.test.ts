// A defect outside of any guest ends the process with one line and exit code 1, whichever way it comes.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const module = new URL('../../src/cli/crash-only.js', import.meta.url);
const errors = new URL('../../src/runtime/runtime.js', import.meta.url);

/** Runs `defect` in a process that ends on defects, and would go on for a minute. */
function end(defect: string) {
  const program = `
    const { endOnDefect } = await import(${JSON.stringify(module.href)});
    const { silentLogger } = await import(${JSON.stringify(errors.href)});
    endOnDefect(silentLogger());
    setTimeout(() => {}, 60_000);
    ${defect}`;
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', program],
    { encoding: 'utf8', timeout: 30_000 },
  );
  return { status, stdout, stderr };
}

for (const [what, defect] of [
  ['thrown in a timer', "setTimeout(() => { throw new TypeError('out of place'); }, 1);"],
  ['a rejection that nobody waits for', "void Promise.reject(new TypeError('out of place'));"],
  ['not an error at all', "setTimeout(() => { throw 'out of place'; }, 1);"],
] as const) {
  test(`a defect that is ${what} ends the process with one line and exit code 1`, () => {
    const { status, stdout, stderr } = end(defect);
    assert.equal(status, 1, stderr);
    assert.equal(stdout, '');
    assert.equal(stderr, 'xen-zcopy: a defect of ours ended the process: out of place\n');
  });
}
