// A card under a PVH dom0, where a guest's own pages become dma-bufs: the daemon imports them into vkms and makes
// framebuffers of them. vkms cannot scan out what gntdev exports; the daemon says so and goes on in the viewer.
// And a buffer is destroyed only when nobody has its dma-buf any more.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { Daemon } from '../../daemon.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import type { Program } from '../../program.ts';
import { assertShown, type Painting, paint } from '../../screen.ts';

const SIZE = { width: 640, height: 480 };
const PAINTING: Painting = { connector: 0, format: 'XR24', seed: 3, ...SIZE };
const TIMEOUT_MS = 90_000;
const POLL_INTERVAL_MS = 250;
const PAGES = (SIZE.width * SIZE.height * 4) / 4096;

const machine = await attach(import.meta);
const { dom0 } = machine;
const host = new HostWatch(dom0);
let served: HostCounts;
let connected: HostCounts;
let daemon: Daemon;
let guest: Guest;

function soon(what: string, condition: () => Promise<boolean>): Promise<void> {
  const timing = { timeoutMs: TIMEOUT_MS, intervalMs: POLL_INTERVAL_MS };
  return until(machine.runtime, condition, { what, ...timing });
}

async function buffers() {
  return (await daemon.guest(guest.domid))?.buffers ?? [];
}

/** Keeps the dma-buf of the guest's buffer in use, as a driver that imported it would. */
async function holdDmaBuf(): Promise<void> {
  const argv = ['hold-dmabuf', `${await daemon.pid()}`];
  await dom0.start({ name: 'holder', argv, environment: {} });
  await soon('the dma-buf is held', async () => {
    const log = await dom0.log('holder');
    if (log.includes('"held"')) return true;
    assert((await dom0.processState('holder'))?.running, log);
    return false;
  });
}

before(async () => {
  await machine.reset();
  await dom0.shell('modprobe vkms');
  daemon = await Daemon.start(machine, '--output', 'kms:card0');
  await host.complaints();
  served = await host.counts();
  const connectors = [{ id: 'Virtual-1', ...SIZE }];
  guest = await Guest.create(dom0, { name: 'exporter', type: 'pvh', connectors });
  await guest.booted();
  await soon('the display is connected', async () => {
    return (await daemon.guest(guest.domid))?.displays.length === 1;
  });
  connected = await host.counts();
});
after(() => dom0.close());

async function shown(): Promise<Program> {
  const program = await paint(guest, PAINTING);
  await assertShown(daemon, guest, PAINTING);
  return program;
}

test("a guest's buffer is a dma-buf; the card is said not to scan it out, and the viewer shows it", async () => {
  const program = await shown();
  const [buffer] = await buffers();
  assert.deepEqual(
    [buffer?.direction, buffer?.dmaBuf, buffer?.state],
    ['from-guest', true, 'live'],
  );
  assert.equal((await daemon.guest(guest.domid))!.displays[0]!.path, 'browser');
  const words =
    /card0 \(vkms\) cannot scan out an imported \S*gntdev\S* buffer; showing it in the viewer only/;
  const line = (await daemon.log()).split('\n').find((candidate) => words.test(candidate));
  // The import and the framebuffer were made: it is the commit of them that vkms refuses.
  assert.match(line ?? 'nothing said', /"reason":"[^"]*MODE_ATOMIC failed with EINVAL/);
  await program.stop();
  assert.deepEqual(await buffers(), [], 'released when its destruction was answered');
  await host.settled(connected);
});

test('a dma-buf that somebody holds too long is in quarantine, is reported, and is freed when it is let go', async () => {
  const program = await shown();
  await holdDmaBuf();
  await program.stop();
  await soon('the buffer is in quarantine', async () => {
    return (await buffers()).some(({ state }) => state === 'quarantined');
  });
  const [buffer] = await buffers();
  assert.deepEqual(
    buffer!.holders.map(({ who, pages }) => [who, pages]),
    [['whoever imported the dma-buf', PAGES]],
  );
  const { held, refused } = (await daemon.guest(guest.domid))!;
  assert.deepEqual([held.quarantinedPages, refused['system-etimedout']], [PAGES, 1]);
  await dom0.stop('holder');
  await soon('the quarantine is empty', async () => (await buffers()).length === 0);
  assert.match(await daemon.log(), /released from quarantine/);
  // What the guest's kernel could not end when it was told so, it ends a few pages at a time.
  await shown().then((again) => again.stop());
  await host.settled(connected);
});

test('kill -9 of the daemon while its dma-bufs are in use, and its restart: the screen is back', async () => {
  const program = await shown();
  await daemon.stop('SIGKILL');
  await daemon.restart();
  await soon('the display is connected', async () => {
    return (await daemon.guest(guest.domid))?.displays.length === 1;
  });
  await program.stop();
  await (await shown()).stop();
  await host.settled(connected);
});

test('xl destroy while dma-bufs of the guest are in use leaves nothing behind', async () => {
  await shown();
  await guest.destroy();
  await host.settled(served);
  assert.deepEqual((await daemon.status()).guests, []);
});

test('neither Xen nor the kernel complained of anything', async () => {
  await daemon.stop();
  assert.deepEqual(await host.complaints(), []);
  await dom0.shell('rmmod vkms');
});
