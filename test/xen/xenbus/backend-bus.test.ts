import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { GuestDomain } from '../../../src/hypervisor/guest-domain.ts';
import { ProtocolViolation } from '../../../src/runtime/errors.ts';
import { DOM0 } from '../../../src/xen/ids.ts';
import { BackendBus } from '../../../src/xen/xenbus/backend-bus.ts';
import {
  addDevice,
  devicePaths,
  eraseDevice,
  type PvDevice,
  removeDevice,
} from '../../../src/xen/xenbus/toolstack.ts';
import { DrmFront, KbdFront } from './linux-frontends.ts';
import { PageBackend, pageDevice } from './page-device.ts';
import { World } from './world.ts';

const NOTHING = { mappings: 0, ports: 0, rows: 0 };

function openBus(world: World, driver: PageBackend): Promise<BackendBus> {
  const { runtime, dom0: domain } = world;
  return world.run(BackendBus.open({ runtime, domain, driver, guests: world.guests() }));
}

/** A frontend without a driver: a published page and channel, and whatever states the test writes. */
async function rawFrontend(world: World, guest: GuestDomain, device: PvDevice) {
  const { frontend } = devicePaths(device);
  const page = await world.run(guest.grants.share({ domid: DOM0, pages: 1, writable: true }));
  const channel = await world.run(guest.events.allocUnbound({ remote: DOM0, handler: () => {} }));
  const write = (key: string, value: string | undefined) =>
    world.run(
      value === undefined
        ? guest.store.remove(`${frontend}/${key}`)
        : guest.store.write(`${frontend}/${key}`, value),
    );
  await write('page-ref', String(page.refs[0]));
  await write('event-channel', String(channel.port));
  const free = async () => {
    await world.run(channel[Symbol.asyncDispose]());
    await world.run(page[Symbol.asyncDispose]());
  };
  return { page, channel, write, free };
}

/** A guest with one device that a bus serves. */
async function host(driver: PageBackend, { seed = 1 }: { seed?: number } = {}) {
  const world = new World(seed);
  const bus = await openBus(world, driver);
  const guest = await world.run(world.guest());
  const device = pageDevice(guest.domid);
  await world.run(addDevice(world.dom0.store, device));
  return { world, bus, guest, device };
}

/** What a frontend may have in its `state` node; undefined is no node. */
const STATES = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '99', undefined] as const;

/** The backend's answer to a frontend that was in `before` and is in `now`. */
function answer(before: string | undefined, now: string | undefined, resumable: boolean): string {
  switch (now) {
    case '1':
    case '5':
    case '6':
      return '2';
    case '3':
      return '4';
    case '4':
      // A frontend that was never Initialised under this backend is left over from another one's life.
      return resumable || before === '3' ? '4' : '2';
    default:
      return '6';
  }
}

for (const resumable of [false, true]) {
  const policy = resumable ? 'keyboards' : 'displays';
  test(`every frontend state after every other, as for ${policy}`, async () => {
    const world = new World(1);
    const driver = new PageBackend({ resumable });
    const bus = await openBus(world, driver);
    const guest = await world.run(world.guest());
    for (const [row, before] of STATES.entries()) {
      for (const [column, now] of STATES.entries()) {
        const device = pageDevice(guest.domid, row * STATES.length + column);
        await world.run(addDevice(world.dom0.store, device));
        const frontend = await rawFrontend(world, guest, device);
        for (const state of [before, now]) {
          await frontend.write('state', state);
          await world.idle();
        }
        const transition = `${before} -> ${now}`;
        const expected = answer(before, now, resumable);
        assert.equal(await world.backendState(device), expected, transition);
        assert.equal(driver.open.size, expected === '4' ? 1 : 0, transition);
        assert.equal(frontend.page.bytes[0], expected === '4' ? 1 : 0, transition);
        await world.run(removeDevice(world.runtime, world.dom0.store, device));
        await world.idle();
        assert.deepEqual(world.held, NOTHING, transition);
        await frontend.free();
      }
    }
    assert.deepEqual(bus.devices, []);
    await world.run(bus.close());
  });
}

test('xen-drm-front comes up, is unbound in time, and comes up again', async () => {
  const driver = new PageBackend();
  const { world, bus, guest, device } = await host(driver);
  const front = new DrmFront(world.runtime, guest, device);
  await world.run(front.probe());
  await world.until(() => front.state === 4, 'the display is connected');
  assert(front.served);
  assert.equal(await world.run(front.remove()), true, 'InitWait was seen while it was removed');
  await world.idle();
  assert.equal(await world.backendState(device), '2');
  assert.equal(world.held.mappings, 0);
  await world.run(front.probe());
  await world.until(() => front.state === 4 && front.served, 'the display is connected again');
  assert.equal(driver.connects, 2);
  await world.run(bus.close());
});

test('a frontend that publishes anew under a watch that missed everything else is connected anew', async () => {
  const driver = new PageBackend({ resumable: true });
  const { world, bus, guest, device } = await host(driver);
  const front = new KbdFront(world.runtime, guest, device);
  await world.run(front.probe());
  await world.until(() => front.state === 4 && front.served, 'connected');
  for (let round = 0; round < 3; round++) {
    await world.run(front.resume());
    await world.idle();
    assert(front.served, `round ${round}`);
    assert.equal(driver.open.size, 1);
    assert.equal(front.state, 4);
  }
  await world.run(bus.close());
});

for (const Front of [DrmFront, KbdFront]) {
  const resumable = Front === KbdFront;
  test(`daemons come and go under a living ${Front.name}, in good order or not`, async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const { world, bus, guest, device } = await host(new PageBackend({ resumable }), { seed });
      const front = new Front(world.runtime, guest, device);
      await world.run(front.probe());
      await world.until(() => front.served && front.state === 4, 'connected at first');
      await world.run(bus.close());
      await world.idle();
      assert.deepEqual(world.held, NOTHING);
      assert.equal(await world.backendState(device), '6');
      assert.notEqual(front.state, 4, 'the frontend knows that the backend is gone');

      const second = await mortalBus(world, new PageBackend({ resumable }));
      await world.until(() => front.served && front.state === 4, 'connected to the second daemon');
      await world.idle();
      await second.kill();
      assert.equal(world.held.mappings + world.held.ports, 0);
      assert.equal(await world.backendState(device), '4', 'nobody told the frontend');

      const third = await openBus(world, new PageBackend({ resumable }));
      await world.until(() => front.served && front.state === 4, 'connected to the third daemon');
      await world.idle();
      assert(front.served && front.state === 4, `still connected, seed ${seed}`);
      assert.equal(await world.backendState(device), '4');
      await world.run(third.close());
    }
  });
}

/** A bus in a process of its own, which can die: its xenstore connection, mappings and ports just end. */
async function mortalBus(world: World, driver: PageBackend) {
  const { runtime } = world;
  const { domain, store } = world.process();
  const guests = world.guests(domain);
  const bus = await world.run(BackendBus.open({ runtime, domain, driver, guests }));
  const kill = async () => {
    await world.run(store[Symbol.asyncDispose]());
    await world.run(bus.close());
  };
  return { kill };
}

test('a frontend whose clients keep it Reconfiguring is waited for', async () => {
  const { world, bus, guest, device } = await host(new PageBackend());
  const front = new DrmFront(world.runtime, guest, device);
  await world.run(front.probe());
  await world.until(() => front.served && front.state === 4, 'connected');
  let clientsGone = () => {};
  front.clients = new Promise((resolve) => {
    clientsGone = resolve;
  });
  await world.run(bus.close());
  const second = await openBus(world, new PageBackend());
  await world.idle();
  assert.equal(front.state, 7);
  assert.notEqual(await world.backendState(device), '4');
  clientsGone();
  await world.until(() => front.served && front.state === 4, 'connected again');
  await world.run(second.close());
});

test('a thousand reconnects leave nothing behind', async () => {
  const driver = new PageBackend();
  const { world, bus, guest, device } = await host(driver);
  const front = new DrmFront(world.runtime, guest, device);
  for (let round = 0; round < 1000; round++) {
    await world.run(front.probe());
    await world.until(() => front.state === 4 && front.served, `round ${round} connects`);
    assert.equal(await world.run(front.remove()), true, `round ${round} is removed in time`);
    await world.until(() => world.held.mappings === 0, `round ${round} lets go`);
    const [row] = world.ledger.accounts;
    assert.deepEqual({ ...row!.held, watches: 0 }, { ...row!.held, ...ZERO });
  }
  assert.equal(driver.connects, 1000);
  await world.run(removeDevice(world.runtime, world.dom0.store, device));
  await world.idle();
  assert.deepEqual(world.held, NOTHING);
  await world.run(bus.close());
});

const ZERO = { pages: 0, refs: 0, mappings: 0, ports: 0, watches: 0 };

test('a violation costs the connection, says why where the guest can read it, and allows a new start', async () => {
  const driver = new PageBackend();
  const { world, bus, guest, device } = await host(driver);
  const front = new DrmFront(world.runtime, guest, device);
  await world.run(front.probe());
  await world.until(() => front.served && front.state === 4, 'connected');
  const first = driver.only.device;
  first.fail(new ProtocolViolation('ring-overflow', 'XEN_EIO', 'producer far away'));
  first.fail(new ProtocolViolation('second', 'XEN_EIO', 'only the first failure counts'));
  await world.until(() => driver.open.size === 0, 'disconnected');
  await world.until(() => front.served && front.state === 4, 'connected anew');
  assert.equal(driver.connects, 2);
  assert.deepEqual([...world.refused], [['ring-overflow', 1]]);
  const path = `/local/domain/0/error/backend/vpage/${guest.domid}/0/error`;
  const reason = await world.run(guest.store.read(path));
  assert.equal(reason, '5 ring-overflow: producer far away');
  assert.equal(bus.devices[0]?.lastError, 'ring-overflow: producer far away');
  await world.run(removeDevice(world.runtime, world.dom0.store, device));
  await world.idle();
  assert.equal(await world.run(world.dom0.store.read(path)), undefined, 'no litter');
  await world.run(bus.close());
});

test('malformed nodes of one guest are its own trouble, and are tried again at a growing pause', async () => {
  const driver = new PageBackend();
  const { world, bus, guest, device } = await host(driver);
  const other = await world.run(world.guest());
  const neighbour = pageDevice(other.domid);
  await world.run(addDevice(world.dom0.store, neighbour));
  const frontend = await rawFrontend(world, guest, device);
  const good = String(frontend.page.refs[0]);
  const malformed = [
    undefined,
    '',
    '0',
    '-1',
    '0x8',
    '1e1',
    `${good} `,
    '4294967296',
    '9'.repeat(300),
  ];
  for (const content of [...malformed, '4000', String(frontend.channel.port + 1000)]) {
    const attempts = refusals(world);
    await frontend.write('state', '1');
    await frontend.write('page-ref', content);
    await frontend.write('state', '3');
    await world.until(() => refusals(world) > attempts, `${content} is refused`);
    assert.equal(driver.open.size, 0);
  }
  const before = refusals(world);
  const sinceMs = world.runtime.nowMs();
  await world.until(() => refusals(world) >= before + 5, 'five more attempts');
  assert(world.runtime.nowMs() - sinceMs > 10_000, 'pauses have grown to seconds');
  const front = new DrmFront(world.runtime, other, neighbour);
  await world.run(front.probe());
  await world.until(() => front.served && front.state === 4, 'the neighbour is served');
  await frontend.write('page-ref', good);
  await world.until(() => frontend.page.bytes[0] === 1, 'served once the nodes are right');
  await world.run(bus.close());
});

function refusals(world: World): number {
  return [...world.refused.values()].reduce((sum, count) => sum + count, 0);
}

test('a defect in a driver stops that device for a while, never the bus', async () => {
  const driver = new PageBackend();
  driver.sabotage.push(new assert.AssertionError({ message: 'our bug' }), new TypeError('another'));
  const { world, bus, guest, device } = await host(driver);
  const front = new DrmFront(world.runtime, guest, device);
  await world.run(front.probe());
  await world.until(() => front.served && front.state === 4, 'connected at the third attempt');
  assert.equal(driver.sabotage.length, 0);
  assert.equal(bus.devices[0]?.lastError, 'another');
  assert.deepEqual(world.refused.size, 0, 'not the guest’s fault');
  await world.run(bus.close());
});

test('devices that could not be listed are listed a moment later (call 3 of the daemon failed)', async () => {
  const world = new World(1);
  const guest = await world.run(world.guest());
  await world.run(addDevice(world.dom0.store, pageDevice(guest.domid)));
  const { domain, store } = world.process();
  let lists = 0;
  const directory = store.directory.bind(store);
  store.directory = async (path) => {
    lists += 1;
    if (lists === 1) throw new Error('not now');
    return directory(path);
  };
  const driver = new PageBackend();
  const { runtime } = world;
  const guests = world.guests(domain);
  const bus = await world.run(BackendBus.open({ runtime, domain, driver, guests }));
  await world.until(() => bus.devices.length === 1, 'the device is found');
  assert.equal(lists, 3);
  await world.run(bus.close());
  await world.idle();
});

test('the toolstack takes devices away, forcibly or not, and guests die connected', async () => {
  for (const way of ['removed', 'erased', 'destroyed', 'crashed', 'offline'] as const) {
    const driver = new PageBackend();
    const { world, bus, guest, device } = await host(driver);
    const front = new DrmFront(world.runtime, guest, device);
    await world.run(front.probe());
    await world.until(() => front.served && front.state === 4, 'connected');
    const { store } = world.dom0;
    if (way === 'removed') await world.run(removeDevice(world.runtime, store, device));
    if (way === 'erased') await world.run(eraseDevice(store, device));
    if (way === 'destroyed') await world.run(world.destroy(guest));
    if (way === 'crashed') world.crash(guest);
    if (way === 'offline') {
      await world.run(store.write(`${devicePaths(device).backend}/online`, '0'));
    }
    await world.idle();
    assert.deepEqual(world.held, NOTHING, way);
    const gone = way === 'removed' || way === 'erased';
    assert.equal(await world.backendState(device), gone ? undefined : '6', way);
    assert.equal(bus.devices.length, gone ? 0 : 1, way);
    await world.run(bus.close());
    assert.equal(await world.backendState(device), gone ? undefined : '6', `${way}, daemon gone`);
  }
});

test('a device that is taken away and given again is served again', async () => {
  const driver = new PageBackend();
  const { world, bus, guest, device } = await host(driver);
  for (let round = 0; round < 5; round++) {
    const front = new DrmFront(world.runtime, guest, device);
    await world.run(front.probe());
    await world.until(() => front.served && front.state === 4, `round ${round}`);
    await world.run(eraseDevice(world.dom0.store, device));
    await world.run(front.abandon());
    if (round % 2 === 0) await world.idle();
    await world.run(addDevice(world.dom0.store, device));
  }
  await world.idle();
  assert.equal(driver.open.size, 0);
  assert.equal(await world.backendState(device), '2');
  await world.run(bus.close());
});

test('several devices share a guest, and its context closes with the last', async () => {
  const driver = new PageBackend();
  const { world, bus, guest, device } = await host(driver);
  const second = pageDevice(guest.domid, 1);
  await world.run(addDevice(world.dom0.store, second));
  await world.idle();
  assert.equal(world.held.rows, 1);
  await world.run(removeDevice(world.runtime, world.dom0.store, device));
  await world.idle();
  assert.equal(world.held.rows, 1);
  await world.run(removeDevice(world.runtime, world.dom0.store, second));
  await world.idle();
  assert.equal(world.held.rows, 0);
  await world.run(bus.close());
});

test('a backend in a driver domain of its own serves with no more rights than a domain has', async () => {
  const world = new World(1);
  const driverDomain = await world.run(world.guest());
  const home = `/local/domain/${driverDomain.domid}`;
  const own = [{ domid: driverDomain.domid, read: false, write: false }];
  for (const key of ['error', 'backend']) {
    await world.run(world.dom0.store.mkdir(`${home}/${key}`));
    await world.run(world.dom0.store.setPermissions(`${home}/${key}`, own));
  }
  const guest = await world.run(world.guest());
  const device = { ...pageDevice(guest.domid), backendDomid: driverDomain.domid };
  await world.run(addDevice(world.dom0.store, device));
  const { runtime } = world;
  const driver = new PageBackend();
  const guests = world.guests(driverDomain);
  const open = () => world.run(BackendBus.open({ runtime, domain: driverDomain, driver, guests }));
  const bus = await open();
  const front = new DrmFront(runtime, guest, device);
  await world.run(front.probe());
  await world.until(() => front.served && front.state === 4, 'connected');
  assert.equal(await world.run(front.remove()), true);
  await world.run(front.probe());
  await world.until(() => front.served && front.state === 4, 'connected again');
  driver.only.device.fail(new ProtocolViolation('test', 'XEN_EINVAL', 'given up'));
  await world.until(() => driver.connects === 3 && front.served, 'connected anew');
  const error = `${home}/error/backend/vpage/${guest.domid}/0/error`;
  assert.equal(await world.run(guest.store.read(error)), '22 test: given up');
  await world.run(world.destroy(guest));
  await world.idle();
  assert.equal(driver.open.size, 0);
  assert.deepEqual([...world.ledger.accounts], []);
  await world.run(bus.close());
});

test('names in the backend’s directory that are no devices are left alone', async () => {
  const { world, bus, device } = await host(new PageBackend());
  const root = '/local/domain/0/backend/vpage';
  for (const name of ['x/0', '1/y', '32752/0', '-1/0', '1/4294967296', '01/0']) {
    await world.run(world.dom0.store.write(`${root}/${name}/state`, '1'));
    await world.run(world.dom0.store.write(`${root}/${name}/frontend`, '/local/domain/1/x'));
  }
  await world.idle();
  assert.deepEqual(
    bus.devices.map(({ domid, devid }) => [domid, devid]),
    [[device.domid, device.devid]],
  );
  await world.run(bus.close());
});

test('a directory that a toolstack has half written is looked at once, and served when it is whole (seed 14)', async () => {
  const driver = new PageBackend();
  const { world, bus, device } = await host(driver);
  const { backend, frontend } = devicePaths({ ...device, devid: 7 });
  const { store } = world.dom0;
  // A daemon that looked again and again would never let the world come to rest.
  await world.run(store.write(`${backend}/frontend`, frontend));
  await world.run(store.write(`/local/domain/0/backend/vpage/999/0/frontend`, '/nowhere'));
  await world.idle();
  assert.equal(bus.devices.length, 1);
  await world.run(store.write(`${frontend}/state`, '1'));
  await world.run(store.write(`${backend}/state`, '1'));
  await world.idle();
  assert.equal(await world.run(store.read(`${backend}/state`)), '2');
  await world.run(bus.close());
});

test('a device that is given again while the old one is forgotten is not overlooked, at whichever step', async () => {
  for (let steps = 0; steps < 40; steps++) {
    const { world, bus, guest, device } = await host(new PageBackend());
    const front = new DrmFront(world.runtime, guest, device);
    await world.run(front.probe());
    await world.until(() => front.served && front.state === 4, 'it is served');
    const { backend, frontend } = devicePaths(device);
    const { store } = world.dom0;
    const removed = store.remove(backend);
    for (let step = 0; step < steps; step++) await world.runtime.step();
    const given = [
      store.write(`${backend}/frontend`, frontend),
      store.write(`${backend}/state`, '1'),
    ];
    await world.run(Promise.all([removed, ...given]));
    await world.idle();
    assert.notEqual(await world.backendState(device), '1', `given again after ${steps} steps`);
    await world.run(bus.close());
  }
});

test('a frontend path outside of the guest’s own home is refused', async () => {
  const driver = new PageBackend();
  const { world, bus, device } = await host(driver);
  await world.run(
    world.dom0.store.write(`${devicePaths(device).backend}/frontend`, '/local/domain/0/device/x/0'),
  );
  await world.until(() => bus.devices[0]?.lastError !== undefined, 'it is refused');
  assert.match(bus.devices[0]!.lastError!, /must name a path below \/local\/domain\/1\//);
  assert.deepEqual(world.held, NOTHING);
  await world.run(bus.close());
});

test('property: whatever a guest does to its state, the end decides, and nothing is left', async () => {
  const states = fc.array(fc.constantFrom(...STATES), { minLength: 1, maxLength: 30 });
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 2 ** 31 }),
      states,
      fc.boolean(),
      async (seed, written, flood) => {
        const driver = new PageBackend({ resumable: true });
        const { world, bus, guest, device } = await host(driver, { seed });
        const frontend = await rawFrontend(world, guest, device);
        const path = `${devicePaths(device).frontend}/state`;
        if (flood) {
          const all = written.map((state) =>
            state === undefined ? guest.store.remove(path) : guest.store.write(path, state),
          );
          await world.run(Promise.all(all));
        } else {
          for (const state of written) await frontend.write('state', state);
        }
        await world.idle();
        const expected = answer(undefined, written.at(-1), true);
        assert.equal(await world.backendState(device), expected);
        assert.equal(driver.open.size, expected === '4' ? 1 : 0);
        await world.run(removeDevice(world.runtime, world.dom0.store, device));
        await world.idle();
        assert.deepEqual(world.held, NOTHING);
        await world.run(bus.close());
      },
    ),
    { numRuns: 60 },
  );
});
