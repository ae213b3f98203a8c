// `share export` and `share import` between processes: every byte arrives, or the exit codes say that it did not.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { sleep } from '../../src/runtime/runtime.ts';
import { onShareMachine, runtime, type ShareCommand, type ShareMachine } from './share-commands.ts';

const ID = /^[0-9a-f]{32}$/m;
const BIG = 20 * 1024 * 1024 + 4321;

function sha(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function file({ directory }: ShareMachine, bytes: Uint8Array): string {
  const path = join(directory, 'sent.img');
  writeFileSync(path, bytes);
  return path;
}

/** One line of complaint, besides what it waited for. */
function complaint(stderr: string): string {
  const lines = stderr.split('\n').filter((line) => line && !/waiting for a domain/.test(line));
  assert.equal(lines.length, 1, stderr);
  return lines[0]!;
}

async function succeeds(command: ShareCommand): Promise<Buffer> {
  const { code, stdout, stderr } = await command.ended;
  assert.equal(code, 0, stderr);
  return stdout;
}

test('a file of 20 MiB arrives byte for byte, with its id, name and size told in JSON', () =>
  onShareMachine(async (machine) => {
    const sent = randomBytes(BIG);
    const output = join(machine.directory, 'got.img');
    writeFileSync(output, 'something older');
    const importing = machine.command('import', 'alice', '--from', 'bob', '--output', output);
    const path = file(machine, sent);
    const exporting = machine.command('export', 'bob', '--to', 'alice', '--json', path);
    const facts = JSON.parse((await succeeds(exporting)).toString());
    assert.match(facts.id, ID);
    const { name, kind, content } = facts;
    assert.deepEqual(
      { name, kind, content },
      { name: 'sent.img', kind: 'stream', content: 'bytes' },
    );
    await succeeds(importing);
    assert.equal(sha(readFileSync(output)), sha(sent));
  }));

test('standard input arrives byte for byte on standard output; so does nothing at all', () =>
  onShareMachine(async (machine) => {
    for (const sent of [randomBytes(BIG), Buffer.alloc(0)]) {
      const exporting = machine.command('export', 'bob', '--to', 'alice', '--name', 'pipe');
      const importing = machine.command('import', 'alice', '--from', 'bob');
      exporting.stdin.end(sent);
      await succeeds(exporting);
      assert.equal(sha(await succeeds(importing)), sha(sent));
    }
  }));

test('a buffer arrives whole, again and again, and once with --once', () =>
  onShareMachine(async (machine) => {
    const sent = randomBytes(1_000_003);
    const path = file(machine, sent);
    const once = machine.command('export', 'bob', '--to', 'alice', '--buffer', '--once', path);
    const first = machine.command('import', 'alice', '--from', 'bob');
    assert.equal(sha(await succeeds(first)), sha(sent));
    await succeeds(once);
    const standing = machine.command('export', 'bob', '--to', 'alice', '--buffer', path);
    for (let round = 0; round < 2; round++) {
      const importing = machine.command('import', 'alice', '--from', 'bob');
      assert.equal(sha(await succeeds(importing)), sha(sent));
    }
    standing.kill('SIGINT');
    assert.equal((await standing.ended).code, 130);
  }));

/** An import and an export of what never ends, in the middle of it. */
async function underWay(machine: ShareMachine) {
  const output = join(machine.directory, 'got.img');
  const importing = machine.command('import', 'alice', '--from', 'bob', '--output', output);
  const exporting = machine.command('export', 'bob', '--to', 'alice');
  await exporting.prints(ID);
  const part = randomBytes(300_000);
  exporting.stdin.write(part);
  while (statSync(output, { throwIfNoEntry: false })?.size !== part.length)
    await sleep(runtime, 20);
  return { importing, exporting, output, part };
}

test('the importer is killed: the export says so and exits with 1', () =>
  onShareMachine(async (machine) => {
    const { importing, exporting } = await underWay(machine);
    importing.kill('SIGKILL');
    exporting.stdin.write('more');
    const { code, stderr } = await exporting.ended;
    assert.equal(code, 1, stderr);
    assert.match(complaint(stderr), /^xen-zcopy: domain \d+ has closed the share before the end/);
  }));

test('the exporter is killed: the import says how much it got and exits with 1', () =>
  onShareMachine(async (machine) => {
    const { importing, exporting, output, part } = await underWay(machine);
    exporting.kill('SIGKILL');
    const { code, stderr } = await importing.ended;
    assert.equal(code, 1, stderr);
    assert.match(complaint(stderr), /the exporter is gone.*; 300000 bytes were got$/);
    assert.equal(sha(readFileSync(output)), sha(part));
  }));

test('Ctrl-C on the export withdraws: 130 there, 1 at the import', () =>
  onShareMachine(async (machine) => {
    const { importing, exporting } = await underWay(machine);
    exporting.kill('SIGINT');
    const exported = await exporting.ended;
    assert.deepEqual([exported.code, exported.stderr.match(/xen-zcopy: ended/)], [130, null]);
    const { code, stderr } = await importing.ended;
    assert.equal(code, 1, stderr);
    assert.match(complaint(stderr), /withdrawn; 300000 bytes were got$/);
  }));

test('Ctrl-C on the import: 130 there, 1 at the export', () =>
  onShareMachine(async (machine) => {
    const { importing, exporting } = await underWay(machine);
    importing.kill('SIGINT');
    assert.equal((await importing.ended).code, 130);
    exporting.stdin.write('more');
    const { code, stderr } = await exporting.ended;
    assert.equal(code, 1, stderr);
    complaint(stderr);
  }));

test('an import whose reader does not read, or goes, can be interrupted, or fails in one line', () =>
  onShareMachine(async (machine) => {
    const path = file(machine, randomBytes(BIG));
    for (const end of ['SIGINT', 'reader'] as const) {
      const exporting = machine.command('export', 'bob', '--to', 'alice', path);
      const importing = machine.command('import', 'alice', '--from', 'bob');
      importing.stdout.pause();
      await exporting.prints(ID);
      await sleep(runtime, 500);
      if (end === 'SIGINT') importing.kill('SIGINT');
      else importing.stdout.destroy();
      const { code, stderr } = await exporting.ended;
      assert.equal(code, 1, stderr);
      const imported = await importing.ended;
      assert.equal(imported.code, end === 'SIGINT' ? 130 : 1);
      if (end === 'reader') assert.match(complaint(imported.stderr), /stdout.*EPIPE/);
    }
  }));

test('names that do not exist yet are waited for, and ids that are not offered are refused', () =>
  onShareMachine(async (machine) => {
    const early = machine.command('import', 'alice', '--from', 'bob');
    await early.says(/^xen-zcopy: waiting for a domain named bob$/m);
    const exporting = machine.command('export', 'bob', '--to', 'alice');
    const [id] = ID.exec(await exporting.prints(ID))!;
    const wrong = machine.command('import', 'carol', '--from', 'bob', id);
    const refused = await wrong.ended;
    assert.equal(refused.code, 1);
    assert.match(complaint(refused.stderr), /no share [0-9a-f]{32} is offered to this domain/);
    const taken = await machine.command('import', 'alice', '--from', 'bob', id).ended;
    assert.equal(taken.code, 1);
    assert.match(complaint(taken.stderr), /alice.*name of a running domain/);
    exporting.stdin.end('hello');
    assert.equal((await succeeds(early)).toString(), 'hello');
    await succeeds(exporting);
  }));

test('nobody comes: --timeout ends both with 1', () =>
  onShareMachine(async (machine) => {
    const path = file(machine, Buffer.from('x'));
    const waiting = machine.command('watch', 'alice', '--from', 'bob');
    const exporting = machine.command('export', 'bob', '--to', 'alice', '--timeout', '0.5', path);
    const exported = await exporting.ended;
    assert.equal(exported.code, 1);
    assert.match(complaint(exported.stderr), /nobody opened the share within 500 ms/);
    waiting.kill('SIGINT');
    assert.equal((await waiting.ended).code, 0);
    const imported = await machine.command('import', 'x', '--from', 'dom0', '--timeout', '1').ended;
    assert.equal(imported.code, 1);
    assert.match(complaint(imported.stderr), /nothing was offered within 1000 ms/);
  }));

test('list and watch see what is offered, and disturb nobody', () =>
  onShareMachine(async (machine) => {
    const path = file(machine, Buffer.from('twelve bytes'));
    const watching = machine.command('watch', 'eve', '--from', 'bob', '--json');
    const exporting = machine.command('export', 'bob', '--to', 'eve', path);
    const [id] = ID.exec(await exporting.prints(ID))!;
    const offered = JSON.parse(await watching.prints(/\n/));
    assert.deepEqual([offered.event, offered.id, offered.bytes], ['offered', id, 12]);
    assert.deepEqual([offered.kind, offered.name], ['stream', 'sent.img']);
    exporting.kill('SIGTERM');
    assert.equal((await exporting.ended).code, 143);
    const [, second] = (await watching.prints(/\n.*\n/)).split('\n');
    assert.deepEqual([JSON.parse(second!).event, JSON.parse(second!).id], ['withdrawn', id]);
    watching.kill('SIGINT');
    assert.equal((await watching.ended).code, 0);

    const again = machine.command('export', 'bob', '--to', 'eve', '--buffer', '--once', path);
    const listed = await succeeds(machine.command('list', 'eve', '--from', 'bob', '--wait', '3'));
    assert.match(listed.toString(), /^ID +FROM +KIND +SIZE +NAME +CONTENT\n/);
    assert.match(listed.toString(), /^[0-9a-f]{32} +\d+ +buffer +12 +sent\.img +bytes\n$/m);
    const importing = machine.command('import', 'eve', '--from', 'bob');
    assert.equal((await succeeds(importing)).toString(), 'twelve bytes');
    await succeeds(again);
  }));

test('raw pictures arrive frame by frame; a file that is cut off in one is an error', () =>
  onShareMachine(async (machine) => {
    const frames = randomBytes(3 * 64 * 48 * 4);
    const picture = ['--picture', 'XR24:64x48@200', '--when-full', 'wait'];
    const path = file(machine, frames);
    const exporting = machine.command('export', 'bob', '--to', 'alice', ...picture, path);
    const importing = machine.command('import', 'alice', '--from', 'bob');
    assert.equal(sha(await succeeds(importing)), sha(frames));
    await succeeds(exporting);
    const looping = machine.command('export', 'bob', '--to', 'alice', ...picture, '--loop', path);
    for (let round = 0; round < 2; round++) {
      const some = machine.command('import', 'alice', '--from', 'bob', '--frames', '4');
      const got = await succeeds(some);
      assert.equal(got.length, (frames.length / 3) * 4);
      if (round === 0) assert.equal(sha(got.subarray(0, frames.length)), sha(frames));
    }
    looping.kill('SIGINT');
    assert.equal((await looping.ended).code, 130);
    const cut = machine.command('export', 'bob', '--to', 'alice', ...picture);
    const partly = machine.command('import', 'alice', '--from', 'bob');
    cut.stdin.end(frames.subarray(0, frames.length - 5));
    const { code, stderr } = await cut.ended;
    assert.equal(code, 1);
    assert.match(
      complaint(stderr),
      /stdin ends in the middle of a picture: picture 2 has 12283 bytes/,
    );
    assert.equal((await partly.ended).code, 1);
  }));
