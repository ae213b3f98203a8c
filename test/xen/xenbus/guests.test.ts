import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger } from '../../../src/runtime/runtime.ts';
import { Scope } from '../../../src/runtime/scope.ts';
import { type DomId, domId } from '../../../src/xen/ids.ts';
import type { GuestContext } from '../../../src/xen/xenbus/driver.ts';
import { Guests } from '../../../src/xen/xenbus/guests.ts';
import { SerialTask } from '../../../src/xen/xenbus/serial-task.ts';
import { World } from './world.ts';

const GUEST = domId(7);

/** Guests whose contexts count how many of one domain exist at once. */
function countedGuests() {
  const counts = { open: 0, opened: 0, most: 0 };
  const world = new World(1);
  let closing: Promise<void> = Promise.resolve();
  const guests = new Guests(async (domid: DomId): Promise<GuestContext> => {
    counts.open += 1;
    counts.opened += 1;
    counts.most = Math.max(counts.most, counts.open);
    const scope = new Scope(`guest-${domid}`);
    scope.defer(async () => {
      await closing;
      counts.open -= 1;
    });
    const { dom0: domain } = world;
    const charge = () => ({ [Symbol.dispose]: () => {} });
    const pace = { spend: () => {}, rest: () => undefined };
    const pool = () => domain.memory.createPool({ domid, pages: 1 });
    const track = () => {};
    const log = silentLogger();
    return { domid, domain, scope, log, countRefusal: () => {}, charge, ...pace, track, pool };
  });
  const holdClosing = () => {
    let go = () => {};
    closing = new Promise((resolve) => {
      go = resolve;
    });
    return () => go();
  };
  return { guests, counts, holdClosing };
}

test('devices of one guest share its context, the last one to leave closes it', async () => {
  const { guests, counts } = countedGuests();
  const [first, second] = await Promise.all([guests.enter(GUEST), guests.enter(GUEST)]);
  assert.equal(first!.guest, second!.guest);
  await first![Symbol.asyncDispose]();
  await first![Symbol.asyncDispose]();
  assert.equal(counts.open, 1, 'leaving twice is leaving once');
  await second![Symbol.asyncDispose]();
  assert.deepEqual(counts, { open: 0, opened: 1, most: 1 });
});

test('a guest that comes back while it is being closed waits, and is another one', async () => {
  const { guests, counts, holdClosing } = countedGuests();
  const go = holdClosing();
  const first = await guests.enter(GUEST);
  const leaving = first[Symbol.asyncDispose]();
  const entering = guests.enter(GUEST);
  await new Promise(process.nextTick);
  assert.equal(counts.opened, 1, 'the old one is still there');
  go();
  await leaving;
  const second = await entering;
  assert.notEqual(second.guest, first.guest);
  await second[Symbol.asyncDispose]();
  assert.deepEqual(counts, { open: 0, opened: 2, most: 1 });
});

test('a guest that cannot be opened is an error for that entry alone', async () => {
  let attempts = 0;
  const guests = new Guests(() => {
    attempts += 1;
    throw new Error('no room');
  });
  await assert.rejects(guests.enter(GUEST), /no room/);
  await assert.rejects(guests.enter(GUEST), /no room/);
  assert.equal(attempts, 2);
});

test('a task that is asked for while it runs runs once more, never twice at a time', async () => {
  let running = 0;
  let runs = 0;
  let go = () => {};
  const task = new SerialTask(async () => {
    running += 1;
    assert.equal(running, 1);
    runs += 1;
    await new Promise<void>((resolve) => {
      go = resolve;
    });
    running -= 1;
  });
  task.request();
  task.request();
  assert.equal(runs, 0, 'never from inside the request');
  await new Promise(process.nextTick);
  for (let request = 0; request < 100; request++) task.request();
  go();
  await new Promise(process.nextTick);
  assert.equal(runs, 2);
  task.request();
  const stopped = task.stop();
  go();
  await stopped;
  task.request();
  await new Promise(process.nextTick);
  assert.equal(runs, 2, 'a stopped task stays stopped');
});
