// Debian's own xenstore-utils against the store on its Unix socket.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstatSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Xenstored } from '../../../src/hypervisor/xenstored/server.ts';
import { listenOnUnixSocket } from '../../../src/hypervisor/xenstored/unix-listener.ts';
import { SysError } from '../../../src/runtime/errors.ts';
import { systemRuntime, until } from '../../../src/runtime/runtime.ts';
import { domId } from '../../../src/xen/ids.ts';
import { connectUnixSocket } from '../../../src/xen/socket-channel.ts';
import { XenstoreClient } from '../../../src/xen/xenstore-client.ts';

const runtime = systemRuntime();

interface Served {
  readonly server: Xenstored;
  readonly path: string;
  /** Runs a tool to its end. */
  run(
    tool: string,
    ...args: string[]
  ): Promise<{ status: number | null; out: string; err: string }>;
  start(tool: string, ...args: string[]): { child: ChildProcess; out(): string };
}

/** A store on a socket of its own, gone when the test is over. */
async function serve(t: TestContext): Promise<Served> {
  const directory = mkdtempSync(join(tmpdir(), 'xenstored-test-'));
  const path = join(directory, 'socket');
  const server = new Xenstored({ runtime });
  const listener = await listenOnUnixSocket({ server, path });
  t.after(async () => {
    await listener[Symbol.asyncDispose]();
    assert.throws(() => lstatSync(path), /ENOENT/);
    rmSync(directory, { recursive: true });
    await until(runtime, () => server.connections === 0, { what: 'every connection is gone' });
  });
  const start = (tool: string, ...args: string[]) => {
    const child = spawn(tool, args, { env: { ...process.env, XENSTORED_PATH: path } });
    let out = '';
    child.stdout.on('data', (bytes) => {
      out += bytes;
    });
    return { child, out: () => out };
  };
  const run = async (tool: string, ...args: string[]) => {
    const { child, out } = start(tool, ...args);
    let err = '';
    child.stderr?.on('data', (bytes) => {
      err += bytes;
    });
    const [status] = await once(child, 'close');
    return { status, out: out(), err };
  };
  return { server, path, run, start };
}

test('xenstore-write, -read, -list, -exists, -ls, -chmod and -rm do what they do with the real one', async (t) => {
  const { run } = await serve(t);
  assert.deepEqual(await run('xenstore-write', '/a/b', 'hello', '/a/c', 'there'), {
    status: 0,
    out: '',
    err: '',
  });
  assert.equal((await run('xenstore-read', '/a/b')).out, 'hello\n');
  assert.equal((await run('xenstore-list', '/a')).out, 'b\nc\n');
  assert.equal((await run('xenstore-exists', '/a/b')).status, 0);
  assert.equal((await run('xenstore-exists', '/a/x')).status, 1);
  assert.equal((await run('xenstore-chmod', '/a/b', 'n3', 'r5', 'b6')).status, 0);
  const listing = await run('xenstore-ls', '-f', '-p');
  const lines = listing.out.split('\n').map((line) => line.replace(/\s+/g, ' '));
  assert.deepEqual(lines, ['/a = "" (n0)', '/a/b = "hello" (n3,r5,b6)', '/a/c = "there" (n0)', '']);
  const missing = await run('xenstore-read', '/nothing');
  assert.equal(missing.status, 1);
  assert.match(missing.err, /couldn't read path \/nothing/);
  assert.equal((await run('xenstore-rm', '/a')).status, 0);
  assert.equal((await run('xenstore-ls', '-f')).out, '');
});

test('xenstore-watch hears what another client and a domain do', async (t) => {
  const { server, path, run, start } = await serve(t);
  const watching = start('xenstore-watch', '-n', '4', '/w', '@releaseDomain');
  await until(runtime, () => watching.out().includes('@releaseDomain'), { what: 'both watches' });
  await run('xenstore-write', '/w/x', '1');
  server.introduceDomain(domId(7));
  server.releaseDomain(domId(7));
  await once(watching.child, 'close');
  assert.deepEqual(watching.out().split('\n').sort(), [
    '',
    '/w',
    '/w/x',
    '@releaseDomain',
    '@releaseDomain',
  ]);
  await using client = new XenstoreClient({ runtime, channel: await connectUnixSocket(path) });
  assert.equal(await client.read('/w/x'), '1');
});

test('xenstore-ls lists a directory longer than a message, and so does our client', async (t) => {
  const { server, path, run } = await serve(t);
  await using client = new XenstoreClient({ runtime, channel: await connectUnixSocket(path) });
  const names = Array.from({ length: 700 }, (_, i) => `an-entry-with-a-long-name-${i}`);
  await Promise.all(names.map((name) => client.write(`/long/${name}`, '')));
  assert.equal(server.connections, 1);
  assert.deepEqual((await client.directory('/long'))?.sort(), [...names].sort());
  const listed = (await run('xenstore-ls', '-f', '/long')).out.trim().split('\n');
  assert.deepEqual(
    listed.map((line) => line.replace(/ = .*$/, '')).sort(),
    names.map((name) => `/long/${name}`).sort(),
  );
});

function errno(errnoName: string) {
  return (error: unknown) => error instanceof SysError && error.errnoName === errnoName;
}

test('the socket is private, a live one is not taken over, a stale one is, a file never', async (t) => {
  const { server, path } = await serve(t);
  assert.equal(lstatSync(path).mode & 0o777, 0o600);
  await assert.rejects(listenOnUnixSocket({ server, path }), errno('EADDRINUSE'));

  const stale = `${path}-stale`;
  const bound = createServer().listen(`${stale}-birthplace`);
  await once(bound, 'listening');
  renameSync(`${stale}-birthplace`, stale);
  bound.close();
  await once(bound, 'close');
  assert.ok(lstatSync(stale).isSocket());
  await using replaced = await listenOnUnixSocket({ server, path: stale });
  const client = new XenstoreClient({ runtime, channel: await connectUnixSocket(replaced.path) });
  assert.deepEqual(await client.directory('/'), []);
  await client[Symbol.asyncDispose]();

  writeFileSync(`${path}-file`, 'precious');
  await assert.rejects(listenOnUnixSocket({ server, path: `${path}-file` }), errno('EEXIST'));
  const long = join(path, '..', 'x'.repeat(120));
  await assert.rejects(listenOnUnixSocket({ server, path: long }), errno('ENAMETOOLONG'));
  const nowhere = join(path, '..', 'no', 'such', 'directory');
  await assert.rejects(listenOnUnixSocket({ server, path: nowhere }), errno('ENOENT'));
});
