// Ends and new beginnings, of the guest, its driver and the daemon: the screen is back each time, and
// nothing stays held.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { Daemon } from '../../daemon.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import { assertShown, type Painting, paint } from '../../screen.ts';

const SIZE = { width: 640, height: 480 };
const CONFIG = { connectors: [{ id: 'screen', ...SIZE }], keyboard: { absolute: SIZE } };
const BACK_TIMEOUT_MS = 120_000;
const POLL_INTERVAL_MS = 500;
const DRIVER = '/sys/bus/xen/drivers/vdispl';

const machine = await attach(import.meta);
const host = new HostWatch(machine.dom0);
let daemon: Daemon;
let guest: Guest;
/** The host with the daemon and no guest; with the guest's screen connected and nothing drawn. */
let served: HostCounts;
let connected: HostCounts;
let seed = 0;
let guests = 0;

function nextPainting(): Painting {
  return { connector: 0, format: 'XR24', seed: ++seed, ...SIZE };
}

/** Resolves when the guest's display is connected to the daemon. */
async function screenIsBack(): Promise<void> {
  const connected = async () => (await daemon.guest(guest.domid))?.displays.length === 1;
  await until(machine.runtime, connected, {
    what: 'the display is connected',
    timeoutMs: BACK_TIMEOUT_MS,
    intervalMs: POLL_INTERVAL_MS,
  });
}

/** Draws something new, sees it through the API, and takes it away. */
async function drawAndSee(): Promise<void> {
  const painting = nextPainting();
  const program = await paint(guest, painting);
  await assertShown(daemon, guest, painting);
  await program.stop();
}

async function newGuest(): Promise<Guest> {
  guest = await Guest.create(machine.dom0, { name: `phoenix${guests++}`, ...CONFIG });
  await guest.booted();
  await screenIsBack();
  return guest;
}

before(async () => {
  await machine.reset();
  await host.complaints();
  daemon = await Daemon.start(machine);
  served = await host.counts();
  guest = await newGuest();
  await drawAndSee();
  connected = await host.counts();
});
after(() => machine.dom0.close());

test('driver unbind and bind: the screen is back', async () => {
  for (const action of ['unbind', 'bind']) await guest.shell(`echo vdispl-0 >${DRIVER}/${action}`);
  await screenIsBack();
  await drawAndSee();
  await host.settled(connected);
});

test('the driver is unloaded and loaded: the screen is back', async () => {
  // A bound device keeps its driver's module.
  await guest.shell(`echo vdispl-0 >${DRIVER}/unbind`);
  await guest.shell('modprobe -r drm_xen_front && modprobe drm_xen_front');
  await screenIsBack();
  await drawAndSee();
  await host.settled(connected);
});

for (const signal of ['SIGTERM', 'SIGKILL'] satisfies NodeJS.Signals[]) {
  test(`the daemon ends by ${signal} while the guest draws, and starts again: the screen is back`, async () => {
    const program = await paint(guest, nextPainting());
    await daemon.stop(signal);
    await daemon.restart();
    await screenIsBack();
    await program.stop();
    await drawAndSee();
    await host.settled(connected);
  });
}

test('while the daemon is away, nothing of the guest is held for it', async () => {
  const program = await paint(guest, nextPainting());
  await daemon.stop();
  const { mappedGrants, ports } = await host.counts();
  // The console and the xenstore page of the guest: xenconsoled's and xenstored's.
  assert.deepEqual([mappedGrants - served.mappedGrants, ports - served.ports], [2, 2]);
  await daemon.restart();
  await screenIsBack();
  await program.stop();
  await drawAndSee();
  await host.settled(connected);
});

test('xl destroy in mid-flip leaves nothing behind', async () => {
  const flip = await guest.start('flip', 0, 'XR24', 1_000_000, 0);
  await flip.waitForLines(1, BACK_TIMEOUT_MS);
  await guest.destroy();
  await host.settled(served);
  assert.deepEqual((await daemon.status()).guests, []);
});

test('a new guest has its screen, and shuts down in order', async () => {
  guest = await newGuest();
  const program = await paint(guest, nextPainting());
  assert.equal(await program.running(), true);
  await guest.shutdown();
  await host.settled(served);
  assert.deepEqual((await daemon.status()).guests, []);
});

// Linux 6.12's driver follows a null pointer when the program that held its device ends after this
// (dbuf_free): the guest is of no use then, but nobody else may notice.
test('a driver unbound while it shows a picture, in a guest that is then destroyed: nothing is held', async () => {
  guest = await newGuest();
  await paint(guest, nextPainting());
  await guest.shell(`echo vdispl-0 >${DRIVER}/unbind`);
  assert.deepEqual((await daemon.guest(guest.domid))?.displays, []);
  await guest.destroy();
  await host.settled(served);
});

test('the daemon ends in order at last, and neither Xen nor the kernel complained of anything', async () => {
  await daemon.stop();
  assert.deepEqual(await host.complaints(), []);
});
