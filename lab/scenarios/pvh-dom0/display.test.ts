// A PVH dom0: the daemon serves PV and PVH guests there as it does in a PV dom0, to the byte.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { Daemon } from '../../daemon.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import type { PaintFormat } from '../../pattern.ts';
import { assertShown, paint } from '../../screen.ts';

const SIZE = { width: 640, height: 480 };
const FORMATS: readonly PaintFormat[] = ['XR24', 'AR24', 'RG16'];

const machine = await attach(import.meta);
const { dom0 } = machine;
const host = new HostWatch(dom0);
let served: HostCounts;
let daemon: Daemon;

before(async () => {
  await machine.reset();
  daemon = await Daemon.start(machine);
  await host.complaints();
  served = await host.counts();
});
after(() => dom0.close());

for (const type of ['pvh', 'pv'] as const) {
  test(`what a guest of the type ${type} draws is what the API returns`, async (t) => {
    const connectors = [{ id: 'screen', ...SIZE }];
    const guest = await Guest.create(dom0, { name: `${type}-guest`, type, connectors });
    await guest.booted();
    for (const [seed, format] of FORMATS.entries()) {
      await t.test(format, async () => {
        const painting = { connector: 0, format, seed, ...SIZE };
        const program = await paint(guest, painting);
        await assertShown(daemon, guest, painting);
        await program.stop();
      });
    }
    await guest.shutdown();
    await host.settled(served);
  });
}

test('the daemon ends, and neither Xen nor the kernel complained of anything', async () => {
  await daemon.stop();
  assert.deepEqual(await host.complaints(), []);
});
