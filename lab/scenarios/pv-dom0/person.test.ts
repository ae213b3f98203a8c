// What a person does with `xen-zcopy lab`: types on the guest's keyboard, sees on its screen what the guest
// answers, and finds the same screen again when the daemon was started anew.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { Daemon } from '../../daemon.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import { decodePng } from '../../picture.ts';

const SCREEN = { width: 800, height: 600 };
const TIMING = { timeoutMs: 120_000, intervalMs: 500 };
/** The evdev codes of `seq 3` and the enter key, and what the shell answers. */
const TYPED = [31, 18, 16, 57, 4, 28];
const ANSWER = /# seq 3\s+1\s+2\s+3\s+.*#/;

const machine = await attach(import.meta);
const host = new HostWatch(machine.dom0);
let served: HostCounts;
let daemon: Daemon;
let guest: Guest;

/** What stands on the guest's console, as text. */
async function consoleText(): Promise<string> {
  return guest.shell('cat /dev/vcs1');
}

/** Resolves with the picture when the screen shows the same twice in a row: the guest is done drawing. */
async function stillPicture(): Promise<Uint8Array> {
  let last: Uint8Array | undefined;
  let seen: Uint8Array | undefined;
  const still = async () => {
    last = seen;
    seen = await daemon.png(guest.domid, 0).then(
      (png) => decodePng(png).rgba,
      () => undefined, // Nothing is shown yet.
    );
    return last !== undefined && seen !== undefined && Buffer.compare(last, seen) === 0;
  };
  await until(machine.runtime, still, { what: 'the screen shows something', ...TIMING });
  return seen!;
}

before(async () => {
  await machine.reset();
  daemon = await Daemon.start(machine);
  served = await host.counts();
  guest = await Guest.create(machine.dom0, {
    name: 'person',
    connectors: [{ id: 'person', ...SCREEN }],
    keyboard: { absolute: SCREEN },
    terminal: true,
  });
  await guest.booted();
  const prompt = async () => /#/.test(await consoleText());
  await until(machine.runtime, prompt, { what: 'the shell prompts', ...TIMING });
});
after(() => machine.dom0.close());

test('what is typed is answered by the shell, and the screen shows it', async () => {
  const blank = await stillPicture();
  const events = TYPED.flatMap((code) => [
    { type: 'key', code, pressed: true } as const,
    { type: 'key', code, pressed: false } as const,
  ]);
  await daemon.input(guest.domid, events);
  const answered = async () => ANSWER.test(await consoleText());
  await until(machine.runtime, answered, { what: 'the shell answers', ...TIMING });
  assert.notEqual(Buffer.compare(await stillPicture(), blank), 0, 'the screen stayed as it was');
});

test('a daemon started anew shows the same screen, without anybody doing anything in the guest', async () => {
  const before = await stillPicture();
  await daemon.stop();
  await daemon.restart();
  assert.equal(Buffer.compare(await stillPicture(), before), 0, 'the screen is another one');
});

test('the guest goes, and the host holds what it held before it came', async () => {
  await guest.shutdown();
  await host.settled(served);
  await daemon.stop();
});
