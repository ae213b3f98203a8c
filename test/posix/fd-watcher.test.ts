// The watcher on real file descriptors: eventfds stand in for /dev/xen/evtchn, which polls alike.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { test } from 'node:test';
import koffi from 'koffi';
import { FdWatcher } from '../../src/posix/fd-watcher.ts';
import { close, read, write } from '../../src/posix/libc.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';

const context = { context: 'watcher test' };
const runtime = systemRuntime();
const libc = koffi.load('libc.so.6');
const createEventfd = libc.func('int eventfd(unsigned int, int)');
const createPipe = libc.func('int pipe2(void *, int)');
const O_NONBLOCK = 0o4000;
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

/** A counter in the kernel: each signal adds one, `take` fetches all of them. */
class Eventfd implements Disposable {
  readonly fd: number = createEventfd(0, O_NONBLOCK);
  readonly #count = new BigUint64Array(1);

  signal(): void {
    write(this.fd, ONE, context);
  }

  take(): number {
    const bytes = new Uint8Array(this.#count.buffer);
    return read(this.fd, bytes, context) === undefined ? 0 : Number(this.#count[0]);
  }

  [Symbol.dispose](): void {
    close(this.fd, context);
  }
}

function allClosed(): Promise<void> {
  return until(runtime, () => FdWatcher.handles === 0, { what: 'libuv closes every handle' });
}

test('fifty thousand events come one by one, with promises settled in between', async () => {
  using event = new Eventfd();
  let seen = 0;
  let settled = 0;
  let furthestBehind = 0;
  using _watcher = new FdWatcher(event.fd, () => {
    seen += event.take();
    void Promise.resolve().then(() => settled++);
    furthestBehind = Math.max(furthestBehind, seen - settled);
    if (seen < 50_000) event.signal();
  });
  event.signal();
  await until(runtime, () => seen >= 50_000, { what: 'all events', timeoutMs: 60_000 });
  assert.equal(seen, 50_000);
  assert.equal(furthestBehind, 1, 'promise reactions of an event run before the next event');
});

test('what is left unread wakes the watcher again', async () => {
  using event = new Eventfd();
  let wakeups = 0;
  using _watcher = new FdWatcher(event.fd, () => {
    wakeups += 1;
    if (wakeups === 3) event.take();
  });
  event.signal();
  await until(runtime, () => wakeups === 3, { what: 'three wake-ups' });
});

test('each of a hundred watchers gets its own events and no others', async () => {
  const events = Array.from({ length: 100 }, () => new Eventfd());
  const counts = new Array<number>(100).fill(0);
  const watchers = events.map(
    (event, i) =>
      new FdWatcher(event.fd, () => {
        counts[i]! += event.take();
      }),
  );
  for (const [i, event] of events.entries()) for (let n = 0; n < i; n++) event.signal();
  const expected = Array.from({ length: 100 }, (_, i) => i);
  await until(runtime, () => counts.every((count, i) => count === expected[i]), {
    what: 'every count',
  });
  for (const watcher of watchers) watcher[Symbol.dispose]();
  await allClosed();
  for (const event of events) event[Symbol.dispose]();
});

test('a watcher closed while its event is pending is not called, even by one in the same turn', async () => {
  using first = new Eventfd();
  using second = new Eventfd();
  let calls = 0;
  const watchers: FdWatcher[] = [];
  const onReady = () => {
    calls += 1;
    for (const watcher of watchers) watcher[Symbol.dispose]();
  };
  watchers.push(new FdWatcher(first.fd, onReady), new FdWatcher(second.fd, onReady));
  first.signal();
  second.signal();
  await until(runtime, () => calls > 0, { what: 'the first event' });
  await allClosed();
  assert.equal(calls, 1);
});

test('thousands of watchers opened and closed, armed and readable, leave nothing behind', async () => {
  using event = new Eventfd();
  event.signal();
  let calls = 0;
  for (let round = 0; round < 5000; round++) {
    new FdWatcher(event.fd, () => calls++)[Symbol.dispose]();
  }
  global.gc?.();
  await allClosed();
  assert.equal(calls, 0);
});

test('a descriptor in error wakes the watcher, which goes on watching', async () => {
  const ends = new Int32Array(2);
  assert.equal(createPipe(ends, O_NONBLOCK), 0);
  const [readEnd, writeEnd] = [ends[0]!, ends[1]!];
  let wakeups = 0;
  const watcher = new FdWatcher(writeEnd, () => {
    wakeups += 1;
    if (wakeups === 3) watcher[Symbol.dispose]();
  });
  close(readEnd, context);
  await until(runtime, () => wakeups === 3, { what: 'three wake-ups' });
  await allClosed();
  close(writeEnd, context);
});

test('a file that cannot be polled is refused by name', async () => {
  const fd = openSync(process.execPath, 'r');
  assert.throws(
    () => new FdWatcher(fd, () => undefined),
    (error) => error instanceof SysError && error.errnoName === 'EPERM',
  );
  assert.throws(
    () => new FdWatcher(-1, () => undefined),
    (error) => error instanceof SysError && error.errnoName === 'EBADF',
  );
  closeSync(fd);
  await allClosed();
});

/** A program that watches its file descriptor 3; `body` is what it does when that is readable. */
function program(body: string): string[] {
  const url = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
  const text = `
    import { readSync } from 'node:fs';
    import { FdWatcher } from ${url('../../src/posix/fd-watcher.js')};
    const buffer = Buffer.alloc(100);
    let calls = 0;
    const watcher = new FdWatcher(3, () => { calls += 1; ${body} });
    console.log('watching');`;
  return ['--input-type=module', '-e', text];
}

test('an open watcher keeps the process alive; once closed the process ends by itself', async () => {
  const body = `const got = readSync(3, buffer).toString(); watcher[Symbol.dispose](); console.log(got);`;
  const child = spawn(process.execPath, program(body), {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
  });
  const stdout = child.stdio[1] as Readable;
  const [first] = await once(stdout, 'data');
  assert.equal(String(first), 'watching\n');
  (child.stdio[3] as Writable).write('seven b');
  const [second] = await once(stdout, 'data');
  assert.equal(String(second), '7\n');
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
});

test('process.exit with an armed watcher exits with its code', () => {
  const [flag, eval_, text] = program('');
  const run = spawnSync(process.execPath, [flag!, eval_!, `${text} process.exit(7);`], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  assert.equal(run.status, 7, String(run.stderr));
});

test('what the callback throws is an uncaught exception, and the watcher lives on', async () => {
  const body = `
    readSync(3, buffer, 0, 1);
    if (calls === 1) throw new Error('on purpose');
    watcher[Symbol.dispose]();`;
  const [flag, eval_, text] = program(body);
  const caught = `process.on('uncaughtException', ({ message }) => console.log('caught ' + message));`;
  const child = spawn(process.execPath, [flag!, eval_!, `${caught} ${text}`], {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
  });
  let output = '';
  (child.stdio[1] as Readable).on('data', (data) => {
    output += data;
  });
  (child.stdio[3] as Writable).write('ab');
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
  await until(runtime, () => output === 'watching\ncaught on purpose\n', { what: output });
});
