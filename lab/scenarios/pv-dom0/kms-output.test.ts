// The daemon on a real card (vkms): the unmodified driver of a PVH guest draws into the card's own dumb
// buffers, lent to it by grants, and the card scans them out. What it shows is told by the checksum of what vkms
// composes, which is that of exactly the guest's pixels; nothing is copied on the way.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { Daemon } from '../../daemon.ts';
import { type Connector, Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import { type PaintFormat, paintedPixels } from '../../pattern.ts';
import type { Program } from '../../program.ts';
import { assertShown, type Painting, paint } from '../../screen.ts';
import { expectedCrc, readCrc } from '../../vkms.ts';

const CONNECTORS: readonly Connector[] = [
  { id: 'Virtual-1', width: 640, height: 480 },
  { id: 'Virtual-2', width: 1024, height: 768 },
];
const FORMATS: readonly PaintFormat[] = ['XR24', 'RG16', 'AR24'];
const BACK_TIMEOUT_MS = 120_000;
const SHOWN_TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 500;

const machine = await attach(import.meta);
const { dom0 } = machine;
const host = new HostWatch(dom0);
let idle: HostCounts;
let served: HostCounts;
let daemon: Daemon;
let guest: Guest;
let guests = 0;

function soon(what: string, condition: () => Promise<boolean>, timeoutMs = SHOWN_TIMEOUT_MS) {
  return until(machine.runtime, condition, { what, timeoutMs, intervalMs: POLL_INTERVAL_MS });
}

async function newGuest(): Promise<void> {
  const name = `seen${guests++}`;
  const config = { name, type: 'pvh', backendAllocates: true, connectors: CONNECTORS } as const;
  guest = await Guest.create(dom0, config);
  await guest.booted();
  await screensAreBack();
}

function screensAreBack(): Promise<void> {
  const connected = async () => (await daemon.guest(guest.domid))?.displays.length === 2;
  return soon('the displays are connected', connected, BACK_TIMEOUT_MS);
}

async function display(connector: number) {
  return (await daemon.guest(guest.domid))!.displays[connector]!;
}

/** The picture's checksum is the one of what the card composes; it may take a frame until it is. */
async function assertScannedOut({ connector, ...pattern }: Painting): Promise<void> {
  const wanted = expectedCrc({ format: pattern.format, pixels: paintedPixels(pattern) });
  await soon(`output ${connector} shows exactly what the guest drew`, async () => {
    return (await readCrc(dom0, connector)) === wanted;
  });
}

function painting(connector: number, format: PaintFormat): Painting {
  const { width, height } = CONNECTORS[connector]!;
  return { connector, format, seed: 10 * connector + FORMATS.indexOf(format) + 1, width, height };
}

async function paintAndSee(...paintings: Painting[]): Promise<Program> {
  const program = await paint(guest, ...paintings);
  for (const picture of paintings) await assertScannedOut(picture);
  return program;
}

before(async () => {
  await machine.reset();
  await dom0.shell('modprobe vkms');
  await host.complaints();
  idle = await host.counts();
  daemon = await Daemon.start(machine, '--output', 'kms:card0');
  served = await host.counts();
  await newGuest();
});
after(() => dom0.close());

for (const connector of CONNECTORS.keys()) {
  for (const format of FORMATS) {
    test(`the card scans out exactly the guest's pixels: ${format}, ${CONNECTORS[connector]!.id}`, async () => {
      const program = await paintAndSee(painting(connector, format));
      const { path, bytesCopied } = await display(connector);
      assert.deepEqual([path, bytesCopied], ['kms', 0]);
      const [buffer] = (await daemon.guest(guest.domid))!.buffers;
      assert.deepEqual([buffer?.direction, buffer?.dmaBuf], ['to-guest', true]);
      await program.stop();
      assert.deepEqual((await daemon.guest(guest.domid))!.buffers, [], 'destroyed');
    });
  }
}

test('both outputs at once, and the viewer shows the same pictures', async () => {
  const paintings = [painting(0, 'XR24'), painting(1, 'RG16')];
  const program = await paintAndSee(...paintings);
  for (const picture of paintings) await assertShown(daemon, guest, picture);
  const { output } = (await daemon.status()).host;
  assert.deepEqual(
    output!.monitors.map(({ connector, showing }) => [connector, showing]),
    [
      ['Virtual-1', true],
      ['Virtual-2', true],
    ],
  );
  await program.stop();
});

test('page flips are paced by the card and copy nothing', async () => {
  const count = 60;
  const before = await display(0);
  const lines = (await guest.shell(`flip 0 XR24 ${count} 10`, BACK_TIMEOUT_MS)).trimEnd();
  const report = JSON.parse(lines.split('\n').at(-1)!) as { flips: number; timeouts: number };
  assert.deepEqual([report.flips, report.timeouts], [count, 0], lines);
  const after = await display(0);
  assert(after.flips - before.flips >= count - 1, `${after.flips} after ${before.flips}`);
  assert.equal(after.bytesCopied, before.bytesCopied);
});

for (const signal of ['SIGTERM', 'SIGKILL'] satisfies NodeJS.Signals[]) {
  test(`the daemon ends by ${signal} while the card scans out, and starts again`, async () => {
    const program = await paintAndSee(painting(0, 'XR24'));
    await daemon.stop(signal);
    await daemon.restart();
    // With buffers of ours, Linux's driver waits until its programs have let go of them.
    await program.stop();
    await screensAreBack();
    await (await paintAndSee(painting(0, 'AR24'))).stop();
  });
}

test('while another program is master the viewer shows the guest, and the card does when that has ended', async () => {
  await daemon.stop();
  const master = 'other-master';
  const argv = ['vkms-readback', '0', '/run/other-master', 'XR24', '99'];
  await dom0.start({ name: master, argv, environment: {} });
  await soon('the other program is master', async () => (await dom0.log(master)) !== '');
  await daemon.restart();
  await screensAreBack();
  const picture = painting(0, 'RG16');
  const program = await paint(guest, picture);
  await assertShown(daemon, guest, picture);
  assert.equal((await display(0)).path, 'browser');
  assert.match(await daemon.log(), /another program sets modes of card0 \(vkms\)/);
  await dom0.stop(master);
  await soon('the card shows the guest', async () => (await display(0)).path === 'kms');
  await assertScannedOut(picture);
  await program.stop();
});

test('xl destroy while the guest flips on the card leaves nothing behind', async () => {
  const flip = await guest.start('flip', 0, 'XR24', 1_000_000, 0);
  await flip.waitForLines(1, BACK_TIMEOUT_MS);
  await guest.destroy();
  await host.settled(served);
  assert.deepEqual((await daemon.status()).guests, []);
});

test('the daemon ends in order at last, and neither Xen nor the kernel complained of anything', async () => {
  await daemon.stop();
  await host.settled(idle);
  assert.deepEqual(await host.complaints(), []);
  await dom0.shell('rmmod vkms');
});
