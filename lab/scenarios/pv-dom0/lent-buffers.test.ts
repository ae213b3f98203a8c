// Buffers that the backend allocates out of the guest's pool (be-alloc, udmabuf): the unmodified driver of a
// PVH guest draws into memory of dom0, which the daemon reads in place; and whoever dies, nothing is lost.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { Daemon } from '../../daemon.ts';
import { type Connector, Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import type { PaintFormat } from '../../pattern.ts';
import { assertShown, paint } from '../../screen.ts';

const CONNECTORS: readonly Connector[] = [
  { id: 'small', width: 640, height: 480 },
  { id: 'large', width: 1920, height: 1080 },
];
const BACK_TIMEOUT_MS = 120_000;
const POLL_INTERVAL_MS = 500;

const machine = await attach(import.meta);
const host = new HostWatch(machine.dom0);
let idle: HostCounts;
let served: HostCounts;
let daemon: Daemon;
let guest: Guest;
let guests = 0;

async function screensAreBack(): Promise<void> {
  const connected = async () => (await daemon.guest(guest.domid))?.displays.length === 2;
  await until(machine.runtime, connected, {
    what: 'the displays are connected',
    timeoutMs: BACK_TIMEOUT_MS,
    intervalMs: POLL_INTERVAL_MS,
  });
}

async function newGuest(): Promise<void> {
  const name = `borrower${guests++}`;
  const config = { name, type: 'pvh', backendAllocates: true, connectors: CONNECTORS } as const;
  guest = await Guest.create(machine.dom0, config);
  await guest.booted();
  await screensAreBack();
}

/** The guest's buffers as the daemon's books have them. */
async function buffers() {
  return (await daemon.guest(guest.domid))?.buffers ?? [];
}

before(async () => {
  await machine.reset();
  await host.complaints();
  idle = await host.counts();
  daemon = await Daemon.start(machine);
  served = await host.counts();
  await newGuest();
});
after(() => machine.dom0.close());

for (const [connector, { width, height }] of CONNECTORS.entries()) {
  for (const format of ['XR24', 'RG16', 'AR24'] satisfies PaintFormat[]) {
    test(`the API returns exactly what the guest draws into lent pages: ${format}, ${width}x${height}`, async () => {
      const painting = { connector, format, seed: 100 + connector, width, height };
      const program = await paint(guest, painting);
      await assertShown(daemon, guest, painting);
      const [buffer] = await buffers();
      assert.deepEqual(
        [buffer?.direction, buffer?.state, buffer?.dmaBuf],
        ['to-guest', 'live', true],
      );
      await program.stop();
      assert.deepEqual(await buffers(), [], 'destroyed, and the guest has let go');
    });
  }
}

test('what was borrowed and given back is held by nobody', async () => {
  const { held } = (await daemon.guest(guest.domid))!;
  assert.deepEqual([held.poolPages, held.buffers, held.quarantinedPages], [0, 0, 0]);
});

for (const signal of ['SIGTERM', 'SIGKILL'] satisfies NodeJS.Signals[]) {
  test(`the daemon ends by ${signal} while the guest draws into its pages, and starts again`, async () => {
    const painting = { connector: 0, format: 'XR24', seed: 7, width: 640, height: 480 } as const;
    const program = await paint(guest, painting);
    await daemon.stop(signal);
    await daemon.restart();
    // With buffers of ours, Linux's driver waits until its programs have let go of them.
    await program.stop();
    await screensAreBack();
    const again = { ...painting, seed: 8 };
    const second = await paint(guest, again);
    await assertShown(daemon, guest, again);
    await second.stop();
  });
}

test('xl destroy while the guest flips between lent buffers leaves nothing behind', async () => {
  const flip = await guest.start('flip', 0, 'XR24', 1_000_000, 0);
  await flip.waitForLines(1, BACK_TIMEOUT_MS);
  await guest.destroy();
  await host.settled(served);
  assert.deepEqual((await daemon.status()).guests, []);
});

test('a guest that shuts down while it shows a lent buffer leaves nothing behind', async () => {
  await newGuest();
  await paint(guest, { connector: 1, format: 'XR24', seed: 9, width: 1920, height: 1080 });
  await guest.shutdown();
  await host.settled(served);
  assert.deepEqual((await daemon.status()).guests, []);
});

test('the daemon ends in order at last, and neither Xen nor the kernel complained of anything', async () => {
  await daemon.stop();
  await host.settled(idle);
  assert.deepEqual(await host.complaints(), []);
});
