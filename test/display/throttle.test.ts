// Floods of one guest, in virtual time: each is slowed down to its rate and counted, and another guest's flips go on
// as if nothing had happened. And who does what guests do is never slowed down.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RawFrontend } from '../../sim/guests/raw-frontend.ts';
import { XENDISPL_OP_GET_EDID } from '../../src/abi/displif.ts';
import type { RequestBody } from '../../src/display/frontend-connector.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import { NullOutput } from '../../src/outputs/null.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { type Budget, DEFAULT_BUDGET, type RATE_KINDS } from '../../src/zcopy/budget.ts';
import { HEIGHT, request, WIDTH } from './bodies.ts';
import { DisplayHost, type TestDisplay } from './host.ts';
import { Rig } from './rig.ts';

const SIZE = `${WIDTH}x${HEIGHT}`;
const FLOOD_MS = 3000;
const PERIOD_MS = 1000 / 60;

interface Beside {
  readonly flooder: Rig;
  readonly host: DisplayHost;
}

/** The quiet guest's flips, sixty a second, for as long as the flood lasts. @returns the slowest, in milliseconds */
async function flipOn(host: DisplayHost, { display }: TestDisplay): Promise<number> {
  const { runtime } = host;
  const buffer = await display.createBuffer({ width: WIDTH, height: HEIGHT, format: XRGB8888 });
  const framebuffer = await display.attach(buffer);
  await display.setMode(0, framebuffer);
  let slowestMs = 0;
  for (const endMs = runtime.nowMs() + FLOOD_MS; runtime.nowMs() < endMs; ) {
    const startMs = runtime.nowMs();
    await display.flipped(0, framebuffer);
    slowestMs = Math.max(slowestMs, runtime.nowMs() - startMs);
    await sleep(runtime, PERIOD_MS - (runtime.nowMs() - startMs));
  }
  return slowestMs;
}

/** Sends a request in a world that somebody else runs. @returns the status that answers it */
async function answer(
  { runtime }: DisplayHost,
  { connector }: Rig,
  body: RequestBody,
): Promise<number> {
  const id = connector.put(body);
  connector.push();
  for (;;) {
    const found = connector.responses.find((response) => response.id === id);
    if (found !== undefined) return found.status;
    await sleep(runtime, 1);
  }
}

/** `flood`, called every millisecond by one guest, beside the flips of another one. */
async function floodBeside(
  budget: Partial<Budget>,
  kind: (typeof RATE_KINDS)[number],
  flood: (beside: Beside) => void | Promise<void>,
  check: (beside: Beside) => void | Promise<void> = () => {},
): Promise<void> {
  const host = await DisplayHost.open({ budget });
  const { domain } = await host.guest(SIZE);
  const raw = new RawFrontend(host, domain, { connectors: 1 });
  await raw.open();
  const beside = { host, flooder: new Rig(host, raw) };
  const quiet = await host.display(SIZE);
  let flooding = true;
  const { runtime } = host;
  const flooded = (async () => {
    for (; flooding; await sleep(runtime, 1)) await flood(beside);
  })();
  const slowestMs = await host.run(flipOn(host, quiet));
  flooding = false;
  await host.run(flooded);
  assert(slowestMs < 1, `a flip of the quiet guest took ${slowestMs} ms`);
  const throttled = host.account(raw.guest.domid).throttled;
  assert(throttled[kind]! > 0, `${kind} are counted: ${JSON.stringify(throttled)}`);
  assert.deepEqual(host.account(quiet.guest.domid).throttled, {});
  await check(beside);
  await quiet.close();
  await beside.flooder.finish();
}

test('requests: a ring that is always full is served at its rate', () =>
  floodBeside(
    { requestsPerSecond: 500 },
    'requestsPerSecond',
    ({ flooder: { connector } }) => {
      while (connector.ring.unanswered < connector.ring.size) {
        connector.put({ operation: XENDISPL_OP_GET_EDID });
      }
      connector.push();
    },
    async ({ flooder, host }) => {
      const { length } = flooder.connector.responses;
      const seconds = host.runtime.nowMs() / 1000;
      assert(length <= 500 * (seconds + 1) + 32, `${length} requests in ${seconds} s`);
      assert(length >= 500 * (FLOOD_MS / 1000), 'and not below it');
      await host.until(() => flooder.connector.ring.unanswered === 0, 'all are answered');
    },
  ));

test('wake-ups: signals without end are heard at their rate', async () => {
  let signals = 0;
  await floodBeside({ wakeupsPerSecond: 100 }, 'wakeupsPerSecond', ({ flooder }) => {
    signals += 1;
    flooder.connector.notify();
  });
  assert(signals > 1000);
});

test('xenstore: a state that is written without end is looked at when there is time, and at last', async () => {
  const state = 'device/vdispl/0/state';
  await floodBeside(
    { storeEventsPerSecond: 20 },
    'storeEventsPerSecond',
    async ({ flooder: { raw } }) => {
      await raw.guest.store.write(state, '4');
      await raw.guest.store.write(`${state}/below`, '');
    },
    async ({ flooder, host }) => {
      assert.equal(flooder.raw.connections, 1, 'it said nothing new');
      const events = flooder.account.throttled.storeEventsPerSecond!;
      assert(events <= FLOOD_MS / 200, `out of xenstored for a while ${events} times`);
      // What it says in the end is heard, also while the watch is not set.
      await host.run(flooder.raw.guest.store.write(state, '5'));
      await flooder.raw.connectedAgain(2);
    },
  );
});

test('pages: buffers that are made over and over rest for what they cost, and are answered in time', async () => {
  const PAGES_PER_SECOND = 60;
  let made = 0;
  let slowestMs = 0;
  let directory = 0;
  await floodBeside(
    { mappedPagesPerSecond: PAGES_PER_SECOND },
    'mappedPagesPerSecond',
    async ({ flooder, host }) => {
      directory ||= await flooder.pages(3);
      const startMs = host.runtime.nowMs();
      const created = request.create({ gref_directory: directory });
      assert.equal(await answer(host, flooder, created), 0);
      assert.equal(await answer(host, flooder, request.destroy()), 0);
      slowestMs = Math.max(slowestMs, host.runtime.nowMs() - startMs);
      made += 1;
    },
    ({ host }) => {
      const seconds = host.runtime.nowMs() / 1000;
      assert(3 * made <= PAGES_PER_SECOND * (seconds + 1) + 3, `${made} buffers in ${seconds} s`);
      assert(3 * made >= PAGES_PER_SECOND * (FLOOD_MS / 1000), 'and not below it');
      assert(slowestMs < 1100, 'a rest is at most a second');
    },
  );
});

test('a guest with four screens at 240 Hz, that also makes buffers and reconnects, is never slowed down', async () => {
  const HZ = 240;
  const output = (runtime: DisplayHost['runtime']) => new NullOutput({ runtime, refreshHz: HZ });
  const host = await DisplayHost.open({
    output: (runtime) => output(runtime as DisplayHost['runtime']),
  });
  const guest = await host.display(SIZE, SIZE, SIZE, SIZE);
  const shape = { width: WIDTH, height: HEIGHT, format: XRGB8888 };
  for (let round = 0; round < 3; round++) {
    const { display } = guest;
    const buffers = [];
    for (let count = 0; count < 12; count++)
      buffers.push(await host.run(display.createBuffer(shape)));
    const framebuffers = await host.run(Promise.all(buffers.map((each) => display.attach(each))));
    const screens = display.connectors.map(async (_, index) => {
      await display.setMode(index, framebuffers[index]);
      for (let flip = 0; flip < HZ / 2; flip++) {
        await display.flipped(index, framebuffers[index + 4 * (flip % 3)]!);
      }
    });
    await host.run(Promise.all(screens));
    for (const buffer of buffers) await host.run(display.destroyBuffer(buffer));
    await guest.close();
    await guest.open();
  }
  assert.deepEqual(host.account(guest.guest.domid).throttled, {});
  assert.deepEqual(host.account(guest.guest.domid).refused, {});
  assert.deepEqual(host.account(guest.guest.domid).budget, { ...DEFAULT_BUDGET, poolPages: 64 });
  await guest.close();
  await host.close();
});
