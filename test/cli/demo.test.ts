// The main job end to end, without a browser: Xen in a process of its own, guests in threads, the
// daemon, and the API as scripts use it.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { enterMachine } from '../../src/hypervisor/process/enter-machine.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { DOM0, domId } from '../../src/xen/ids.ts';
import { DemoProcess } from './demo-process.ts';
import { differentPixels, expectedSheet, SHEET } from './expected-sheet.ts';

const runtime = systemRuntime();
const directory = mkdtempSync(join(tmpdir(), 'xen-zcopy-demo-'));
const socket = join(directory, 'xenstored');
const door = join(directory, 'machine');
const KEY_H = 35;
const KEY_I = 23;
const BTN_LEFT = 0x110;

let demo: DemoProcess;

before(async () => {
  demo = await DemoProcess.start('--xenstore-socket', socket, '--machine', door);
});
after(async () => {
  assert.equal(await demo.stop(), 0, 'the demo ends in good order');
});

test('two guests, each with its screen in its own size and format', async () => {
  const card = await demo.ready('guest-1');
  const sheet = await demo.ready('guest-2');
  const { width, height, format } = card.displays[0]!;
  assert.deepEqual({ width, height, format }, { width: 1280, height: 720, format: 'XRGB8888' });
  assert.equal(sheet.displays[0]!.format, 'RGB565');
  assert.deepEqual(sheet.input.area, SHEET);
  assert.notEqual(card.domid, sheet.domid);
  assert(card.held.buffers === 2 && card.held.framebuffers === 2);
  assert(card.held.pages! >= 2 * 900, 'two buffers of 900 pages and the rings');
});

test('the moving guest flips on and on, and nothing is copied while nobody looks', async () => {
  const before = await demo.ready('guest-1');
  const later = await demo.guestWhen(
    'guest-1',
    ({ displays }) => displays[0]!.flips > before.displays[0]!.flips + 10,
  );
  assert.equal(later.displays[0]!.bytesCopied, before.displays[0]!.bytesCopied);
});

test('the picture over HTTP is what the guest drew, to the pixel; keys and pointer reach it', async () => {
  const guest = await demo.ready('guest-2');
  assert.equal(differentPixels(await demo.picture(guest), expectedSheet('guest-2')), 0);

  await demo.input(guest, [
    { type: 'key', code: KEY_H, pressed: true },
    { type: 'key', code: KEY_H, pressed: false },
    { type: 'key', code: KEY_I, pressed: true },
    { type: 'key', code: KEY_I, pressed: false },
    { type: 'position', x: 300, y: 300 },
    { type: 'key', code: BTN_LEFT, pressed: true },
    { type: 'position', x: 500, y: 400 },
    { type: 'key', code: BTN_LEFT, pressed: false },
  ]);
  const expected = expectedSheet('guest-2', (sketch) => {
    sketch.key(KEY_H, true);
    sketch.key(KEY_I, true);
    sketch.position(300, 300);
    sketch.key(BTN_LEFT, true);
    sketch.position(500, 400);
    sketch.key(BTN_LEFT, false);
  });
  await until(runtime, async () => differentPixels(await demo.picture(guest), expected) === 0, {
    what: 'the drawn and typed picture',
    intervalMs: 50,
  });
});

test("Debian's xenstore-ls sees the host of this process", () => {
  const { status, stdout, stderr } = spawnSync('xenstore-ls', ['-f', '/local/domain'], {
    encoding: 'utf8',
    env: { ...process.env, XENSTORED_PATH: socket },
  });
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^\/local\/domain\/1\/name = "guest-1"/m);
  assert.match(stdout, /^\/local\/domain\/0\/backend\/vdispl\/1\/0\/state = "4"/m);
  assert.match(stdout, /^\/local\/domain\/2\/device\/vkbd\/0\/state = "4"/m);
});

test('a process enters the machine and is a domain beside the guests', async () => {
  const path = door;
  const taken = enterMachine({ runtime, path, name: 'guest-1' });
  await assert.rejects(taken, (error) => error instanceof SysError && error.errnoName === 'EEXIST');
  const us = await enterMachine({ runtime, path, name: 'shell' });
  const card = await demo.ready('guest-1');
  assert.equal(await us.resolve('guest-1'), card.domid);
  assert.equal(await us.resolve('Domain-0'), DOM0);
  await using shared = await us.domain.grants.share({
    domid: domId(card.domid),
    pages: 3,
    writable: true,
  });
  assert.equal(shared.refs.length, 3);
  const { domid, store } = us.domain;
  assert.equal(await store.read(`/local/domain/${domid}/name`), 'shell');
  assert.equal(await demo.guest('shell'), undefined, 'a domain without devices is no guest of it');
  await us[Symbol.asyncDispose]();
});

test('stop, crash and restart: all that the guest held comes back, the other never notices', async () => {
  const bystander = await demo.ready('guest-1');
  for (const [action, state] of [
    ['stop', 'stopped'],
    ['crash', 'crashed'],
  ] as const) {
    const guest = await demo.ready('guest-2');
    await demo.control(guest, action);
    const gone = await demo.guestWhen('guest-2', (now) => now.state === state);
    assert.deepEqual(
      Object.values(gone.held).filter((amount) => amount !== 0),
      [],
      JSON.stringify(gone.held),
    );
    assert.equal((await demo.fetch(`/api/guests/${guest.domid}/displays/0.png`)).status, 404);
    await demo.control(gone, 'restart');
    const anew = await demo.ready('guest-2');
    assert.notEqual(anew.domid, guest.domid);
    assert.equal(differentPixels(await demo.picture(anew), expectedSheet('guest-2')), 0);
  }
  const still = await demo.ready('guest-1');
  assert.equal(still.domid, bystander.domid);
  assert.deepEqual(still.held, bystander.held);
});
