// Reading and writing pipes without waiting in the call: what is there comes, what is not is waited for, and
// the waiting can be given up.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { FdWatcher } from '../../src/posix/fd-watcher.ts';
import { PatientFd } from '../../src/posix/patient-fd.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';

const context = 'a test of pipes';
const never = new AbortController().signal;

/** Both ends of a new pipe, as a program may be given them: reading waits. */
async function piped(body: (ends: { reader: number; writer: number }) => Promise<void>) {
  const directory = mkdtempSync(join(tmpdir(), 'xen-zcopy-pipe-'));
  const path = join(directory, 'pipe');
  assert.equal(spawnSync('mkfifo', [path]).status, 0);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(path, constants.O_WRONLY);
  try {
    await body({ reader, writer });
  } finally {
    closeSync(reader);
    rmSync(directory, { recursive: true });
  }
  const what = 'libuv closes every handle';
  await until(systemRuntime(), () => FdWatcher.handles === 0, { what });
}

test('bytes come as they are written, nothing is waited for in a call, and the end is told', () =>
  piped(async ({ reader, writer }) => {
    using from = PatientFd.open(reader, { readiness: 'readable', context })!;
    const into = new Uint8Array(10);
    assert.equal(from.tryRead(into), undefined);
    {
      using to = PatientFd.open(writer, { readiness: 'writable', context })!;
      const ready = from.ready(never);
      assert.equal(to.tryWrite(Uint8Array.of(1, 2, 3)), 3);
      await ready;
      assert.equal(from.tryRead(into), 3);
      assert.deepEqual([...into.subarray(0, 3)], [1, 2, 3]);
    }
    closeSync(writer);
    await from.ready(never);
    assert.equal(from.tryRead(into), 0);
  }));

test('a full pipe takes no more until somebody reads, and waiting ends by its signal', () =>
  piped(async ({ reader, writer }) => {
    using from = PatientFd.open(reader, { readiness: 'readable', context })!;
    using to = PatientFd.open(writer, { readiness: 'writable', context })!;
    const block = new Uint8Array(256 * 1024);
    let written = 0;
    for (let count = to.tryWrite(block); count !== undefined; count = to.tryWrite(block)) {
      written += count;
    }
    assert(written >= 65_536, `${written} bytes`);
    const impatient = new AbortController();
    const waiting = to.ready(impatient.signal);
    impatient.abort(new Error('enough'));
    await assert.rejects(waiting, /enough/);
    const room = to.ready(never);
    assert.equal(from.tryRead(block), Math.min(written, block.length));
    await room;
    assert((to.tryWrite(block) ?? 0) > 0);
    closeSync(writer);
  }));

test('a file on a disk is always ready, and says so', () => {
  const fd = openSync('/proc/self/exe', 'r');
  assert.equal(PatientFd.open(fd, { readiness: 'readable', context }), undefined);
  closeSync(fd);
});
