// The machine's end of the socket against what no library sends, and a process's end against a machine that
// goes away.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstatSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { enterMachine } from '../../../src/hypervisor/process/enter-machine.ts';
import { listenForGuests } from '../../../src/hypervisor/process/listener.ts';
import { MachineFile, machineFileRef } from '../../../src/hypervisor/process/machine-file.ts';
import { MessageStream } from '../../../src/hypervisor/process/message-stream.ts';
import { PROTOCOL_VERSION } from '../../../src/hypervisor/process/messages.ts';
import { SysError } from '../../../src/runtime/errors.ts';
import { type Runtime, systemRuntime } from '../../../src/runtime/runtime.ts';
import { DOM0, domId } from '../../../src/xen/ids.ts';
import { connectUnixSocket } from '../../../src/xen/socket-channel.ts';
import { refuseToShow } from '../no-mappings.ts';
import { eventually } from '../worker/host.ts';
import { onMachine, onSocket, ProcessGuest } from './world.ts';

const runtime = systemRuntime();
const program = fileURLToPath(new URL('./machine-process.js', import.meta.url));

/** A clock on which every wait is short. */
const hasty: Runtime = {
  nowMs: () => runtime.nowMs(),
  wallMs: () => runtime.wallMs(),
  after: (_, task) => runtime.after(50, task),
  defer: (task) => runtime.defer(task),
  random: runtime.random,
  log: runtime.log,
};

function errno(...names: string[]) {
  return (error: unknown) => {
    assert(error instanceof SysError && names.includes(error.errnoName), String(error));
    return true;
  };
}

/** A connection without the library: what it was told, and whether it is over. */
async function rawProcess(path: string) {
  const channel = await connectUnixSocket(path);
  const heard: unknown[] = [];
  let closed = false;
  const stream = new MessageStream(channel, {
    onMessage: (message) => {
      heard.push(message);
      if (typeof message === 'object' && message !== null && 'over' in message) stream.close();
    },
    onClose: () => {
      closed = true;
    },
  });
  return { channel, stream, heard, closed: () => closed };
}

const enter = (name: string) => ({ enter: name, version: PROTOCOL_VERSION });

test('messages that are none crash the domain that sent them, and no other', () =>
  onMachine(async ({ host, path, guest }) => {
    const bystander = await guest('bystander');
    const refs = await bystander.share({ domid: DOM0, pages: 1, writable: false, fill: 3 });
    const wrong: unknown[] = [
      'x',
      null,
      1,
      [],
      {},
      { call: 'format', id: 1 },
      { call: 'populate', id: 1 },
      { call: 'populate', id: 'x', request: { pages: 1 } },
      { call: 'openWindow', id: 1, request: { frames: [1, 2] } },
      { call: 'constructor', id: 1, request: {} },
      { dropped: [1] },
      { lookUp: 1, name: 7, wait: true },
      { lookUp: 1, name: 'x'.repeat(5000), wait: true },
      { forget: -1 },
      enter('again'),
    ];
    for (const message of wrong) {
      const raw = await rawProcess(path);
      raw.stream.send(enter('hostile'));
      await eventually(() => raw.heard.length > 0, 'the welcome');
      const [hostile] = host.guests.filter(({ name }) => name === 'hostile');
      raw.stream.send(message);
      assert.equal(await hostile!.gone, 'crash', JSON.stringify(message));
    }
    const mapping = await host.dom0.foreign.map({ domid: bystander.domid, refs, writable: false });
    assert.equal(mapping.bytes[0], 3);
    await mapping[Symbol.asyncDispose]();
  }));

test('bytes that are no messages end the connection', () =>
  onMachine(async ({ host, path }) => {
    const text = (content: string, after: number[] = []) => {
      const bytes = new TextEncoder().encode(content);
      const message = new Uint8Array(8 + bytes.length + after.length);
      const view = new DataView(message.buffer);
      view.setUint32(0, 4 + bytes.length + after.length, true);
      view.setUint32(4, bytes.length, true);
      message.set(bytes, 8);
      message.set(after, 8 + bytes.length);
      return message;
    };
    const wrong = [
      Uint8Array.of(0xff, 0xff, 0xff, 0xff),
      Uint8Array.of(0, 0, 9, 0),
      Uint8Array.of(2, 0, 0, 0, 1, 1),
      Uint8Array.of(4, 0, 0, 0, 1, 0, 0, 0),
      text('{'),
      text(''),
      text('['.repeat(200_000)),
      text('{"call":"openWindow","id":1,"request":{"frames":{"$array":"u32","length":2}}}', [1]),
      text('{"$array":"u32","length":-1}'),
      text('{"$array":"f64","length":0}'),
      text('{"call":"populate","id":1,"request":{"pages":1}}', [1, 2, 3]),
    ];
    for (const early of [true, false]) {
      for (const bytes of wrong) {
        const raw = await rawProcess(path);
        if (!early) {
          raw.stream.send(enter('hostile'));
          await eventually(() => raw.heard.length > 0, 'the welcome');
        }
        raw.channel.send(bytes);
        await eventually(raw.closed, 'the connection is over');
        await eventually(() => host.guests.length === 0, 'its domain is gone');
      }
    }
  }));

test('more look-ups than a process may have crash it; a version that is not ours is refused', () =>
  onMachine(async ({ host, path }) => {
    const old = await rawProcess(path);
    old.stream.send({ enter: 'old', version: 0 });
    await eventually(() => old.heard.length > 0, 'the refusal');
    assert.match(JSON.stringify(old.heard), /EPROTO/);
    old.stream.close();
    const raw = await rawProcess(path);
    raw.stream.send(enter('curious'));
    await eventually(() => raw.heard.length > 0, 'the welcome');
    const [curious] = host.guests;
    for (let lookUp = 0; lookUp <= 64; lookUp++) {
      raw.stream.send({ lookUp, name: 'nobody', wait: true });
    }
    assert.equal(await curious!.gone, 'crash');
  }));

test('a process that asks and never reads is not served beyond a bound', () =>
  onMachine(async ({ host, path }) => {
    const raw = await rawProcess(path);
    raw.stream.send(enter('deaf'));
    await eventually(() => raw.heard.length > 0, 'the welcome');
    raw.channel.pause();
    const [deaf] = host.guests;
    const ask = () => {
      for (let id = 0; id < 100 && raw.channel.pendingBytes < 512 * 1024; id++) {
        raw.stream.send({ call: 'closeWindow', id, request: { window: 1_000_000 } });
      }
      return raw.channel.pendingBytes > 256 * 1024;
    };
    await eventually(ask, 'the machine stops reading');
    assert.equal(host.hypervisor.domain(deaf!.domid)?.state, 'running');
    raw.channel.close();
    assert.equal(await deaf!.gone, 'crash');
  }));

/** A machine in a process of its own. */
async function startMachine(t: TestContext): Promise<{ machine: ChildProcess; path: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'xen-zcopy-machine-'));
  const path = join(directory, 'machine');
  const machine = spawn(process.execPath, [program, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => {
    machine.kill('SIGKILL');
    rmSync(directory, { recursive: true });
  });
  await once(machine.stdout!, 'data');
  return { machine, path };
}

test('the machine dies while a process waits for it: what waits fails, views read zeros', async (t) => {
  const { machine, path } = await startMachine(t);
  const alice = await enterMachine({ runtime, path, name: 'alice' });
  const { domain } = alice;
  const shared = await domain.grants.share({ domid: domain.domid, pages: 2, writable: true });
  const { refs, bytes } = shared;
  const mapping = await domain.foreign.map({ domid: domain.domid, refs, writable: true });
  const view = mapping.bytes;
  bytes[0] = 7;
  assert.equal(view[0], 7);
  machine.kill('SIGSTOP');
  const waiting = [
    domain.grants.share({ domid: DOM0, pages: 1, writable: true }),
    domain.events.allocUnbound({ remote: DOM0, handler: () => {} }),
    domain.store.read('/local/domain/0/name'),
    alice.resolve('bob', { wait: true }),
    mapping[Symbol.asyncDispose](),
  ];
  assert.equal(view[0], 0, 'revoked before the machine has done anything');
  bytes[0] = 8;
  machine.kill('SIGKILL');
  const settled = await Promise.allSettled(waiting);
  const failed = settled.filter(({ status }) => status === 'rejected');
  for (const { reason } of failed as PromiseRejectedResult[]) errno('ECONNRESET')(reason);
  assert.equal(failed.length, waiting.length);
  assert(domain.stopped.aborted);
  assert.deepEqual([bytes[0], view[0]], [0, 0]);
  await assert.rejects(alice.resolve('bob'), errno('ECONNRESET'));
  await alice[Symbol.asyncDispose]();
});

test('the machine dies while a process is idle: it is told', async (t) => {
  const { machine, path } = await startMachine(t);
  const alice = await enterMachine({ runtime, path, name: 'alice' });
  const { stopped } = alice.domain;
  const aborted = once(stopped, 'abort');
  machine.kill('SIGKILL');
  await aborted;
  const fail = alice.domain.foreign.map({ domid: DOM0, refs: [], writable: false });
  await assert.rejects(fail);
  await alice[Symbol.asyncDispose]();
  await assert.rejects(enterMachine({ runtime, path, name: 'bob' }), errno('ECONNREFUSED'));
});

test('the machine is switched off, the socket first or the host at once', async () => {
  for (const first of ['listener', 'host']) {
    await onSocket(async (path, host) => {
      const listener = await listenForGuests({ host, path });
      const alice = await enterMachine({ runtime, path, name: 'alice' });
      const shared = await alice.domain.grants.share({ domid: DOM0, pages: 1, writable: true });
      shared.bytes[0] = 1;
      const { bytes } = shared;
      await (first === 'listener' ? listener : host)[Symbol.asyncDispose]();
      await eventually(() => alice.domain.stopped.aborted, 'the process is told');
      assert.equal(bytes[0], 0);
      await listener[Symbol.asyncDispose]();
      await alice[Symbol.asyncDispose]();
    });
  }
});

test('a process that does not let go is cut off when the machine is switched off', async () => {
  for (const first of ['listener', 'host']) {
    await onSocket(async (path, host) => {
      const listener = await listenForGuests({ host, path });
      const alice = new ProcessGuest(path, 'alice');
      try {
        await alice.enter();
        alice.signal('SIGSTOP');
        await (first === 'listener' ? listener : host)[Symbol.asyncDispose]();
        assert.deepEqual(host.guests, []);
        await listener[Symbol.asyncDispose]();
        alice.signal('SIGCONT');
        await eventually(() => alice.tell<boolean>('stopped'), 'the process is told');
      } finally {
        await alice.kill();
      }
    });
  }
});

test('who does not say who they are loses the connection; a machine that says nothing is left', () =>
  onSocket(
    async (path, host) => {
      const listener = await listenForGuests({ host, path });
      const silent = await rawProcess(path);
      await eventually(silent.closed, 'the connection is over');
      await listener[Symbol.asyncDispose]();
      const mute = createServer(() => {});
      await once(mute.listen(path), 'listening');
      const late = enterMachine({ runtime: hasty, path, name: 'a' });
      await assert.rejects(late, errno('ETIMEDOUT'));
      mute.close();
    },
    { runtime: hasty },
  ));

test('the socket is private, a stale one is replaced, a live one is not taken over', () =>
  onSocket(async (path, host) => {
    const stale = spawn(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log())`,
    ]);
    await once(stale.stdout, 'data');
    await assert.rejects(listenForGuests({ host, path }), errno('EADDRINUSE'));
    stale.kill('SIGKILL');
    await once(stale, 'exit');
    const listener = await listenForGuests({ host, path });
    assert.equal(lstatSync(path).mode & 0o777, 0o600);
    await using _ = await enterMachine({ runtime, path, name: 'alice' });
    await assert.rejects(listenForGuests({ host, path }), errno('EADDRINUSE'));
    await listener[Symbol.asyncDispose]();
    assert.throws(() => lstatSync(path), /ENOENT/);
    writeFileSync(path, 'mine');
    await assert.rejects(listenForGuests({ host, path }), errno('EEXIST'));
  }));

test('a socket that is no machine is told apart, and one that says nothing', () =>
  onSocket(async (path) => {
    await assert.rejects(enterMachine({ runtime, path, name: 'a' }), errno('ENOENT'));
    const talker = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    await once(talker.listen(path), 'listening');
    await assert.rejects(enterMachine({ runtime, path, name: 'a' }), errno('ECONNRESET'));
    talker.close();
  }));

test("a file that is not the machine's memory is not mapped", () =>
  onSocket(async (_, { hypervisor }) => {
    const ref = machineFileRef(hypervisor.memory);
    new MachineFile(ref)[Symbol.dispose]();
    assert.throws(() => new MachineFile({ ...ref, inode: '1' }), errno('ESTALE'));
    assert.throws(() => new MachineFile({ ...ref, fd: 100_000 }), errno('ENOENT'));
    assert.throws(() => new MachineFile({ ...ref, pid: 2 ** 30 }), errno('ENOENT'));
  }));

test('when the process has no room for a view, nothing is taken, and it works again later', (context) =>
  onSocket(async (path, host) => {
    const listener = await listenForGuests({ host, path });
    const alice = await enterMachine({ runtime, path, name: 'alice' });
    const { domid, grants, foreign } = alice.domain;
    const books = () => host.hypervisor.books().domains.find((each) => each.domid === domid)!;
    const before = books();
    const makeRoom = refuseToShow(context, MachineFile.prototype);
    await assert.rejects(grants.share({ domid, pages: 4, writable: true }), errno('ENOMEM'));
    await assert.rejects(grants.share({ domid, pages: 600, writable: true }), errno('ENOMEM'));
    assert.deepEqual(books(), before);
    makeRoom();
    const { refs, bytes } = await grants.share({ domid, pages: 600, writable: true });
    bytes[0] = 7;
    const makeRoomAgain = refuseToShow(context, MachineFile.prototype);
    const mapping = await foreign.map({ domid, refs, writable: false });
    assert.throws(() => mapping.bytes, errno('ENOMEM'));
    makeRoomAgain();
    assert.equal(mapping.bytes[0], 7);
    await alice[Symbol.asyncDispose]();
    await listener[Symbol.asyncDispose]();
  }));

test('a look-up ends by its signal, and is forgotten by the machine', () =>
  onSocket(async (path, host) => {
    const listener = await listenForGuests({ host, path });
    const alice = await enterMachine({ runtime, path, name: 'alice' });
    for (let round = 0; round < 100; round++) {
      const enough = new AbortController();
      const found = alice.resolve('bob', { wait: true, signal: enough.signal });
      enough.abort(new Error('enough'));
      await assert.rejects(found, /enough/);
    }
    const many = Array.from({ length: 64 }, () => alice.resolve('bob', { wait: true }));
    await assert.rejects(alice.resolve('bob', { wait: true }), errno('EBUSY'));
    const guest = await host.createGuest({ name: 'bob' });
    assert.deepEqual(new Set(await Promise.all(many)), new Set([domId(guest.domid)]));
    await alice[Symbol.asyncDispose]();
    await listener[Symbol.asyncDispose]();
  }));
