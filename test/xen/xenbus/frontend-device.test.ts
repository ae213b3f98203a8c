import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolViolation } from '../../../src/runtime/errors.ts';
import { BackendBus } from '../../../src/xen/xenbus/backend-bus.ts';
import { FrontendDevice } from '../../../src/xen/xenbus/frontend-device.ts';
import {
  addDevice,
  devicePaths,
  eraseDevice,
  removeDevice,
} from '../../../src/xen/xenbus/toolstack.ts';
import type { Xenstore, XenstoreAccess } from '../../../src/xen/xenstore.ts';
import { PageBackend, pageDevice } from './page-device.ts';
import { PageFrontend } from './page-frontend.ts';
import { World } from './world.ts';

function openBus(world: World, driver: PageBackend): Promise<BackendBus> {
  const { runtime, dom0: domain } = world;
  return world.run(BackendBus.open({ runtime, domain, driver, guests: world.guests() }));
}

/** A guest with a device, and its driver; no backend yet. */
async function guestWithDevice(seed = 1) {
  const world = new World(seed);
  const guest = await world.run(world.guest());
  const device = pageDevice(guest.domid);
  await world.run(addDevice(world.dom0.store, device));
  const front = new PageFrontend();
  const { runtime } = world;
  const open = () =>
    world.run(FrontendDevice.open({ runtime, domain: guest, driver: front, devid: 0 }));
  return { world, guest, device, front, open };
}

/** What the guest itself has left over, on the hypervisor's books. */
function ofGuest(world: World, domid: number): { grantsMapped: number; ports: number } {
  const books = world.hypervisor.books().domains.find((domain) => domain.domid === domid);
  assert(books);
  return { grantsMapped: books.grantsMapped, ports: books.ports };
}

test('whoever comes first, frontend and backend meet, part and leave nothing', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const { world, guest, device, front, open } = await guestWithDevice(seed);
    const frontendFirst = seed % 2 === 0;
    const early = frontendFirst ? await open() : undefined;
    const bus = await openBus(world, new PageBackend());
    const frontend = early ?? (await open());
    await world.until(() => front.served && frontend.state === 4, `connected, seed ${seed}`);
    assert.equal(front.connects, 1);
    await world.run(frontend.close());
    assert.equal(await world.frontendState(device), '6');
    assert.equal(front.page, undefined);
    await world.idle();
    assert.equal(await world.backendState(device), '2');
    assert.deepEqual(ofGuest(world, guest.domid), { grantsMapped: 0, ports: 0 });
    await world.run(bus.close());
  }
});

test('a frontend survives backends that stop, and is connected by the next one', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const { world, front, open } = await guestWithDevice(seed);
    const frontend = await open();
    for (let life = 1; life <= 3; life++) {
      const bus = await openBus(world, new PageBackend({ resumable: seed % 2 === 0 }));
      await world.until(() => front.served && frontend.state === 4, `life ${life} connects`);
      await world.run(bus.close());
      await world.idle();
      assert.equal(frontend.state, 1);
      assert.equal(front.page, undefined, 'what was shared is taken back');
    }
    assert.equal(front.connects, 3);
    assert.equal(front.failed, undefined);
    await world.run(frontend.close());
  }
});

test('a backend that gives a connection up is connected anew', async () => {
  const { world, front, open } = await guestWithDevice();
  const driver = new PageBackend();
  const bus = await openBus(world, driver);
  const frontend = await open();
  await world.until(() => front.served && frontend.state === 4, 'connected');
  driver.only.device.fail(new ProtocolViolation('test', 'XEN_EINVAL', 'given up'));
  await world.until(() => front.connects === 2 && front.served, 'connected anew');
  await world.run(frontend.close());
  await world.run(bus.close());
});

test('closing does not wait for ever for a backend that holds on', async () => {
  const { world, guest, device, front, open } = await guestWithDevice();
  const frontend = await open();
  const { backend } = devicePaths(device);
  await world.run(world.dom0.store.write(`${backend}/state`, '2'));
  await world.until(() => frontend.state === 3, 'published');
  await world.run(world.dom0.store.write(`${backend}/state`, '4'));
  await world.until(() => frontend.state === 4, 'connected');
  const sinceMs = world.runtime.nowMs();
  await world.run(frontend.close());
  assert(world.runtime.nowMs() - sinceMs >= 1000, 'it was given its time');
  assert.equal(front.page, undefined);
  assert.deepEqual(ofGuest(world, guest.domid), { grantsMapped: 0, ports: 0 });
});

test('a driver that fails ends its device, and says why', async () => {
  const { world, device, front, open } = await guestWithDevice();
  front.sabotage.push(new ProtocolViolation('bad-backend', 'XEN_EINVAL', 'nonsense'));
  const bus = await openBus(world, new PageBackend());
  const frontend = await open();
  await world.until(() => front.failed !== undefined, 'the driver is told');
  assert.match(front.failed!.message, /bad-backend/);
  assert.equal(await world.frontendState(device), '6');
  assert.equal(frontend.state, 6);
  await world.run(frontend.close());
  await world.run(bus.close());
});

test('a device that the toolstack takes away lets go of what it shared', async () => {
  for (const way of [removeDevice, undefined]) {
    const { world, guest, device, front, open } = await guestWithDevice();
    const bus = await openBus(world, new PageBackend());
    const frontend = await open();
    await world.until(() => front.served && frontend.state === 4, 'connected');
    const { store } = world.dom0;
    await world.run(way ? way(world.runtime, store, device) : eraseDevice(store, device));
    await world.idle();
    assert.equal(front.page, undefined);
    assert.deepEqual(ofGuest(world, guest.domid), { grantsMapped: 0, ports: 0 });
    assert.deepEqual(world.held, { mappings: 0, ports: 0, rows: 0 });
    await world.run(bus.close());
  }
});

test('a guest without the device is told what is missing', async () => {
  const world = new World(1);
  const guest = await world.run(world.guest());
  const { runtime } = world;
  const options = { runtime, domain: guest, driver: new PageFrontend(), devid: 0 };
  await assert.rejects(world.run(FrontendDevice.open(options)), /device\/vpage\/0\/backend/);
});

/** A frontend that has published and waits for the backend, of which the test writes the states. */
async function published() {
  const parts = await guestWithDevice();
  const { world, device, open } = parts;
  const { store } = world.dom0;
  const invite = () => world.run(store.write(`${devicePaths(device).backend}/state`, '2'));
  const frontend = await open();
  await invite();
  await world.until(() => frontend.state === 3, 'it has published');
  return { ...parts, store, invite, frontend };
}

test('a device that is taken away while its frontend waits for the backend is over (seed 1330911956)', async () => {
  const { world, device, front, store } = await published();
  await world.run(eraseDevice(store, device));
  await world.until(() => front.failed !== undefined, 'it is told');
  assert.match(front.failed!.message, /has taken .* away/);
  assert.equal(front.page, undefined);
});

test('a device that is given back before its frontend has looked is published anew (seed 1330911956)', async () => {
  const { world, device, front, store, invite, frontend } = await published();
  const before = front.page;
  // All in one transaction, and addDevice's own inside it: nobody can have looked in between.
  await world.run(
    store.transaction(async (access) => {
      const transaction = <T>(body: (inner: XenstoreAccess) => Promise<T>) => body(access);
      const within = { transaction } as Xenstore;
      await eraseDevice(within, device);
      await addDevice(within, device);
    }),
  );
  await invite();
  await world.until(() => front.page !== before && frontend.state === 3, 'it publishes again');
  assert.equal(await world.frontendState(device), '3');
  await world.run(frontend.close());
});
