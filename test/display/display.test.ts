// Backend and frontend together: the whole handshake, and pictures.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DisplayFrontend } from '../../src/display/frontend.ts';
import type { GuestDisplay, GuestFramebuffer } from '../../src/display/guest-display.ts';
import { RGB565, XRGB8888 } from '../../src/display/pixel-format.ts';
import { NullOutput } from '../../src/outputs/null.ts';
import { eagerChannels } from '../xen/eager-channels.ts';
import { DisplayHost, type HostOptions, type TestDisplay } from './host.ts';
import { RecordingOutput } from './recording-output.ts';

const SEEDS = [1, 2, 3, 4, 5];
const SMALL = { width: 64, height: 48, format: XRGB8888 };

async function framebuffer(
  host: DisplayHost,
  display: GuestDisplay,
  shape = SMALL,
): Promise<GuestFramebuffer> {
  const buffer = await host.run(display.createBuffer(shape));
  return host.run(display.attach(buffer));
}

/** A host and a connected guest of one screen, with two framebuffers, the first of which is shown. */
async function twoFramebuffers(options?: HostOptions) {
  const host = await DisplayHost.open(options);
  const guest = await host.display('64x48');
  const first = await framebuffer(host, guest.display);
  const second = await framebuffer(host, guest.display);
  await host.run(guest.display.setMode(0, first));
  return { host, guest, first, second };
}

async function finish(host: DisplayHost, ...guests: TestDisplay[]): Promise<void> {
  for (const guest of guests) await guest.close();
  await host.close();
}

for (const seed of SEEDS) {
  test(`handshake, buffers, flips and farewell, seed ${seed}`, async () => {
    const { host, guest, first, second } = await twoFramebuffers({ seed });
    for (let flip = 0; flip < 200; flip++) {
      await host.run(guest.display.flipped(0, flip % 2 === 0 ? second : first));
    }
    const [status] = host.backend.connectorsOf(guest.guest.domid);
    assert.equal(status?.flips, 200);
    assert.equal(status.uniqueId, 'screen-0');
    assert.deepEqual(
      [status.width, status.height, status.format, status.bytesCopied, status.path],
      [64, 48, 'XRGB8888', 0, 'null'],
    );
    await host.run(guest.display.setMode(0, undefined));
    await host.run(guest.display.detach(first));
    await host.run(guest.display.destroyBuffer(first.buffer));
    await host.run(guest.display.destroyBuffer(second.buffer));
    const account = host.account(guest.guest.domid);
    assert.equal(account.held.buffers, 0);
    assert.equal(account?.held.framebuffers, 0);
    assert.equal(account?.held.mappings, 2, 'the two pages of the connector');
    assert.deepEqual(account.refused, {});
    await finish(host, guest);
  });
}

test('the output sees the very pixels that the guest draws, without a copy', async () => {
  const output = new RecordingOutput();
  const { host, guest, first, second } = await twoFramebuffers({ output: () => output });
  first.buffer.bytes.fill(0x11);
  const [connector] = output.connectors;
  assert(connector?.shown);
  assert.equal(connector.shown.bytes.length, 64 * 48 * 4);
  assert(connector.shown.bytes.every((byte) => byte === 0x11));
  second.buffer.bytes.fill(0x22);
  const flipped = guest.display.flipped(0, second);
  await host.until(() => connector.pending, 'the flip arrives');
  assert(connector.shown.bytes.every((byte) => byte === 0x22));
  second.buffer.bytes[5] = 0x33;
  assert.equal(connector.shown.bytes[5], 0x33, 'the same memory');
  connector.complete();
  await host.run(flipped);
  await finish(host, guest);
});

test('a flip is complete when the output says so, and not before', async () => {
  const output = new RecordingOutput();
  const { host, guest, second } = await twoFramebuffers({ output: () => output });
  const [connector] = output.connectors;
  let complete = false;
  guest.display.flip(0, second, () => {
    complete = true;
  });
  await host.until(() => connector!.pending, 'the flip arrives');
  await host.pause(500);
  assert.equal(complete, false);
  connector!.complete();
  await host.until(() => complete, 'the event arrives');
  await finish(host, guest);
});

test('flips go on beyond the slots of the event page, from callback to callback', async () => {
  const { host, guest, first, second } = await twoFramebuffers();
  let flips = 0;
  const next = (error?: Error) => {
    assert.equal(error, undefined);
    flips += 1;
    if (flips < 500) guest.display.flip(0, flips % 2 ? first : second, next);
  };
  guest.display.flip(0, second, next);
  await host.until(() => flips === 500, '500 flips');
  await finish(host, guest);
});

test('flips come at the rate of a monitor', async () => {
  const { host, guest, first, second } = await twoFramebuffers({
    output: (runtime) => new NullOutput({ runtime, refreshHz: 60 }),
  });
  const { runtime } = host;
  const startMs = runtime.nowMs();
  for (let flip = 0; flip < 120; flip++) {
    await host.run(guest.display.flipped(0, flip % 2 ? first : second));
  }
  const elapsedMs = runtime.nowMs() - startMs;
  assert(elapsedMs > 119 * (1000 / 60) - 1 && elapsedMs < 121 * (1000 / 60));
  const [status] = host.backend.connectorsOf(guest.guest.domid);
  assert(Math.abs(status!.flipsPerSecond - 60) < 2);
  await finish(host, guest);
});

test('several connectors and several guests do not meet', async () => {
  const output = new RecordingOutput();
  const host = await DisplayHost.open({ output: () => output, seed: 7 });
  const one = await host.display('64x48', '32x32');
  const other = await host.display('64x48');
  const a = await framebuffer(host, one.display);
  const b = await framebuffer(host, one.display, { width: 32, height: 32, format: RGB565 });
  const c = await framebuffer(host, other.display);
  await host.run(one.display.setMode(0, a));
  await host.run(one.display.setMode(1, b));
  await host.run(other.display.setMode(0, c));
  a.buffer.bytes.fill(1);
  b.buffer.bytes.fill(2);
  c.buffer.bytes.fill(3);
  assert.deepEqual(
    output.connectors.map(({ info, shown }) => [info.domid, info.index, shown?.bytes[0]]),
    [
      [one.guest.domid, 0, 1],
      [one.guest.domid, 1, 2],
      [other.guest.domid, 0, 3],
    ],
  );
  assert.equal(output.connectors[1]?.shown?.stride, 64);
  await finish(host, one, other);
});

test('destroying a shown buffer takes it off the screen and waits for the output', async () => {
  const output = new RecordingOutput({ holdRetired: true });
  const { host, guest, first } = await twoFramebuffers({ output: () => output });
  const [connector] = output.connectors;
  let destroyed = false;
  const destroying = guest.display.destroyBuffer(first.buffer).then(() => {
    destroyed = true;
  });
  await host.until(() => connector!.retiring === 1, 'the output is asked to let go');
  await host.pause(500);
  assert.equal(connector?.shown, undefined);
  const before = host.mapped;
  assert.equal(destroyed, false);
  connector!.letGo();
  await host.run(destroying);
  assert.equal(host.mapped, before - 3, 'three pages of 64x48 pixels');
  await finish(host, guest);
});

test('an output that does not let go costs an ETIMEDOUT and a quarantine, not the service', async () => {
  const output = new RecordingOutput({ holdRetired: true });
  const { host, guest, first, second } = await twoFramebuffers({ output: () => output });
  const startMs = host.runtime.nowMs();
  await assert.rejects(host.run(guest.display.destroyBuffer(first.buffer)), /ETIMEDOUT/);
  assert(host.runtime.nowMs() - startMs < 3000, 'answered before the frontend gives up');
  const account = host.account(guest.guest.domid);
  assert.equal(account.held.quarantinedPages, 3);
  assert.equal(account.held.buffers, 2);
  await host.run(guest.display.setMode(0, second));
  await host.run(
    guest.display
      .flipped(0, second)
      .catch(() => {})
      .then(() => {}),
  );
  output.connectors[0]!.letGo();
  await host.until(() => account.held.quarantinedPages === 0, 'the quarantine ends');
  assert.equal(account.held.buffers, 1);
  await finish(host, guest);
});

test('a hanging output does not keep a guest from leaving', async () => {
  const output = new RecordingOutput({ holdRetired: true, holdClosing: true });
  const { host, guest, first } = await twoFramebuffers({ output: () => output });
  await host.run(guest.display.destroyBuffer(first.buffer).catch(() => {}));
  await finish(host, guest);
});

test('a guest that crashes in mid-flip leaves nothing behind', async () => {
  for (const seed of SEEDS) {
    const output = new RecordingOutput();
    const { host, guest, second } = await twoFramebuffers({ seed, output: () => output });
    guest.display.flip(0, second, () => {});
    await host.until(() => output.connectors[0]!.pending, 'the flip arrives');
    guest.guest.crash();
    assert.equal(await host.run(guest.guest.gone), 'crash');
    assert(output.connectors[0]!.closed);
    await host.close();
  }
});

test('a frontend that comes back again and again leaves nothing behind (X2)', async () => {
  // In virtual time all of this happens at once, which at the default pace would be a flood.
  const host = await DisplayHost.open({ seed: 9, budget: { storeEventsPerSecond: 1000 } });
  const guest = await host.display('64x48');
  for (let round = 0; round < 25; round++) {
    const shown = await framebuffer(host, guest.display);
    await host.run(guest.display.setMode(0, shown));
    await host.run(guest.display.flipped(0, shown));
    await guest.close();
    const { watches, ...held } = host.account(guest.guest.domid).held;
    assert.equal(watches, 1, 'the frontend is watched for its return');
    assert(Object.values(held).every((count) => count === 0));
    await guest.open();
  }
  await finish(host, guest);
});

test('a buffer of a display that is over cannot be made, and the error says why (seed 6)', async () => {
  const host = await DisplayHost.open();
  const guest = await host.display('64x48');
  const { display } = guest;
  const shape = { width: 64, height: 48, format: XRGB8888 };
  const over = { name: 'SysError', errnoName: 'ENOTCONN' };
  await guest.close();
  await host.run(assert.rejects(display.createBuffer(shape), over));
  await host.close();
});

test('an event before a frontend has its connector concerns nobody (seed 758800519)', async () => {
  const host = await DisplayHost.open();
  const { domain } = await host.guest('64x48', '32x32');
  let connected = false;
  const failures: Error[] = [];
  const frontend = await host.run(
    DisplayFrontend.open({
      runtime: host.runtime,
      domain: eagerChannels(domain),
      onConnected: () => {
        connected = true;
      },
      onFailed: (reason) => failures.push(reason),
    }),
  );
  await host.until(() => connected || failures.length > 0, 'the display connects');
  assert.deepEqual(failures, []);
  await host.run(frontend.close());
  await host.close();
});
