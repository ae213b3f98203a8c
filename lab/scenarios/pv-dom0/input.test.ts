// Keys and pointers: what is posted to the API arrives in the unmodified guest as evdev events, in order,
// and nothing else does.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { InputEvent } from '../../../src/outputs/browser/protocol.ts';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { Daemon } from '../../daemon.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import type { Program } from '../../program.ts';

const AREA = { width: 800, height: 600 };
const CONNECTED_TIMEOUT_MS = 120_000;
const ARRIVAL_TIMEOUT_MS = 60_000;
const LISTEN_SECONDS = 600;
const POLL_INTERVAL_MS = 250;

const EV_SYN = 0;
const EV_KEY = 1;
const EV_REL = 2;
const EV_ABS = 3;
const [KEY_A, KEY_S, BTN_LEFT] = [30, 31, 0x110];
const [REL_X, REL_Y, REL_WHEEL] = [0, 1, 8];
const [ABS_X, ABS_Y] = [0, 1];
const KEYBOARD = 'Xen Virtual Keyboard';
const POINTER = 'Xen Virtual Pointer';

/** A line of the guest program `events`. */
interface Arrival {
  readonly device: string;
  readonly type: number;
  readonly code: number;
  readonly value: number;
}

const machine = await attach(import.meta);
const host = new HostWatch(machine.dom0);
let empty: HostCounts;
let daemon: Daemon;
let relative: Guest;
let absolute: Guest;

async function connected(guest: Guest): Promise<void> {
  const state = async () => (await daemon.guest(guest.domid))?.input?.state === 'connected';
  await until(machine.runtime, state, {
    what: `the keyboard of ${guest.name} is connected`,
    timeoutMs: CONNECTED_TIMEOUT_MS,
    intervalMs: POLL_INTERVAL_MS,
  });
}

/** Listens to the guest's devices until `count` events came, those that only separate included. */
async function listen(guest: Guest, count: number): Promise<Program> {
  const program = await guest.start('events', LISTEN_SECONDS, count);
  const [opened] = await program.waitForLines<{ devices: string[] }>(1, ARRIVAL_TIMEOUT_MS);
  for (const device of [KEYBOARD, POINTER]) assert(opened!.devices.includes(device), device);
  return program;
}

/** What arrived, as [device, type, code, value], without the separators. */
async function arrivals(program: Program, count: number) {
  const [, ...lines] = await program.waitForLines<Arrival>(count + 1, ARRIVAL_TIMEOUT_MS);
  return lines
    .filter(({ type }) => type !== EV_SYN)
    .map(({ device, type, code, value }) => [device, type, code, value]);
}

/** Posts the events and checks that exactly `wanted` arrives, each followed by a separator. */
async function assertArrives(
  guest: Guest,
  events: InputEvent[],
  wanted: unknown[][],
  syns: number,
) {
  const count = wanted.length + syns;
  const program = await listen(guest, count);
  await daemon.input(guest.domid, events);
  assert.deepEqual(await arrivals(program, count), wanted);
}

/**
 * A guest whose pointer has no absolute positions. The daemon offers them unless the toolstack said
 * something, and `xl` cannot say no: so the node is there before the daemon comes.
 */
async function relativeGuest(): Promise<Guest> {
  const guest = await Guest.create(machine.dom0, { name: 'relative', keyboard: {}, paused: true });
  const node = `/local/domain/0/backend/vinput/${guest.domid}/0/feature-abs-pointer`;
  await machine.dom0.output(['xenstore-write', node, '0']);
  return guest;
}

before(async () => {
  await machine.reset();
  empty = await host.counts();
  relative = await relativeGuest();
  daemon = await Daemon.start(machine);
  await relative.unpause();
  absolute = await Guest.create(machine.dom0, { name: 'absolute', keyboard: { absolute: AREA } });
  for (const guest of [relative, absolute]) {
    await guest.booted();
    await connected(guest);
  }
});
after(() => machine.dom0.close());

test('keys arrive on the keyboard, buttons on the pointer', async () => {
  const key = (code: number, pressed: boolean): InputEvent => ({ type: 'key', code, pressed });
  const events = [key(KEY_A, true), key(KEY_A, false), key(BTN_LEFT, true), key(BTN_LEFT, false)];
  const wanted = [
    [KEYBOARD, EV_KEY, KEY_A, 1],
    [KEYBOARD, EV_KEY, KEY_A, 0],
    [POINTER, EV_KEY, BTN_LEFT, 1],
    [POINTER, EV_KEY, BTN_LEFT, 0],
  ];
  await assertArrives(relative, events, wanted, wanted.length);
});

test('relative moves and the wheel arrive with their signs', async () => {
  const events: InputEvent[] = [
    { type: 'motion', dx: 5, dy: -3 },
    { type: 'wheel', delta: 1 },
    { type: 'wheel', delta: -2 },
  ];
  const wanted = [
    [POINTER, EV_REL, REL_X, 5],
    [POINTER, EV_REL, REL_Y, -3],
    [POINTER, EV_REL, REL_WHEEL, 1],
    [POINTER, EV_REL, REL_WHEEL, -2],
  ];
  await assertArrives(relative, events, wanted, events.length);
});

test('absolute positions arrive where they are', async () => {
  const events: InputEvent[] = [
    { type: 'position', x: 100, y: 200 },
    { type: 'position', x: AREA.width - 1, y: AREA.height - 1 },
  ];
  const wanted = [
    [POINTER, EV_ABS, ABS_X, 100],
    [POINTER, EV_ABS, ABS_Y, 200],
    [POINTER, EV_ABS, ABS_X, AREA.width - 1],
    [POINTER, EV_ABS, ABS_Y, AREA.height - 1],
  ];
  await assertArrives(absolute, events, wanted, events.length);
});

test('relative moves of an absolute pointer arrive as the positions they lead to', async () => {
  const start: InputEvent = { type: 'position', x: 400, y: 300 };
  await daemon.input(absolute.domid, [start]);
  const wanted = [
    [POINTER, EV_ABS, ABS_X, 405],
    [POINTER, EV_ABS, ABS_Y, 297],
  ];
  await assertArrives(absolute, [{ type: 'motion', dx: 5, dy: -3 }], wanted, 1);
});

test('a burst of a thousand keys arrives whole and in order', async () => {
  const presses = 1000;
  const codes = Array.from({ length: presses }, (_, index) => KEY_A + (index % 8));
  const events = codes.flatMap((code): InputEvent[] => [
    { type: 'key', code, pressed: true },
    { type: 'key', code, pressed: false },
  ]);
  const program = await listen(relative, events.length * 2);
  // The API takes a bounded number of events at once, and the ring between us holds some dozens.
  const atOnce = 20;
  for (let start = 0; start < events.length; start += atOnce) {
    await daemon.input(relative.domid, events.slice(start, start + atOnce));
  }
  const seen = await arrivals(program, events.length * 2);
  const wanted = codes.flatMap((code) => [
    [KEYBOARD, EV_KEY, code, 1],
    [KEYBOARD, EV_KEY, code, 0],
  ]);
  assert.deepEqual(seen, wanted);
});

test('a key that is down when the daemon ends comes up, and keys go on with the next daemon', async () => {
  const program = await listen(relative, 6);
  await daemon.input(relative.domid, [{ type: 'key', code: KEY_S, pressed: true }]);
  await daemon.stop();
  await daemon.restart();
  await connected(relative);
  await daemon.input(relative.domid, [{ type: 'key', code: KEY_A, pressed: true }]);
  assert.deepEqual(await arrivals(program, 6), [
    [KEYBOARD, EV_KEY, KEY_S, 1],
    [KEYBOARD, EV_KEY, KEY_S, 0],
    [KEYBOARD, EV_KEY, KEY_A, 1],
  ]);
});

test('both guests and the daemon go, and the host holds what it held before they came', async () => {
  await relative.destroy();
  await absolute.shutdown();
  await daemon.stop();
  await host.settled(empty);
});
