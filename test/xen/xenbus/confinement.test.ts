// A driver whose code fails in every way in which code can: each costs its own device the connection, and nothing else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sleep } from '../../../src/runtime/runtime.ts';
import type { Scope } from '../../../src/runtime/scope.ts';
import type { Domain } from '../../../src/xen/domain.ts';
import { BackendBus } from '../../../src/xen/xenbus/backend-bus.ts';
import type { BackendDevice } from '../../../src/xen/xenbus/driver.ts';
import { addDevice } from '../../../src/xen/xenbus/toolstack.ts';
import { DrmFront } from './linux-frontends.ts';
import { PageBackend, pageDevice } from './page-device.ts';
import { World } from './world.ts';

class Defect extends TypeError {}

/** How the driver fails once, in its first connection of the device that is to suffer; `domain` is its own. */
type Fault = (parts: { device: BackendDevice; scope: Scope; domain: Domain }) => unknown;

const fail = (): never => {
  throw new Defect('a defect of ours');
};

const FAULTS: Readonly<Record<string, Fault>> = {
  'a timer': ({ device }) => device.runtime.after(5, fail),
  'a deferred task': ({ device }) => device.runtime.defer(fail),
  'what an output calls back': ({ device }) => {
    const callback = device.confined(fail);
    // Whoever calls it goes on.
    callback();
  },
  'a promise that nobody waits for': ({ device }) =>
    void device.confined(async () => {
      await sleep(device.runtime, 1);
      fail();
    })(),
  'a watch': ({ device, scope }) =>
    device.guest.domain.store.watch(`${device.frontendPath}/state`, fail).then((watch) => {
      scope.own(watch);
    }),
  'a handler of events': (parts) => handled(parts, fail),
  'the promise of a handler of events': (parts) => handled(parts, async () => fail()),
};

/** A channel to ourselves, whose event is handled by `handler`. */
async function handled(
  { device, scope, domain }: Parameters<Fault>[0],
  handler: () => void | Promise<void>,
) {
  const { events, domid } = device.guest.domain;
  const request = { remote: domid, handler: () => {} };
  const offered = scope.own(await domain.events.allocUnbound(request));
  const { port: remotePort } = offered;
  scope.own(await events.bindInterdomain({ remote: domid, remotePort, handler }));
  device.runtime.after(1, () => offered.notify());
}

class FaultyBackend extends PageBackend {
  readonly #victim: number;
  readonly #domain: Domain;
  #fault: Fault | undefined;

  constructor(victim: number, { fault, domain }: { fault: Fault; domain: Domain }) {
    super();
    this.#domain = domain;
    this.#victim = victim;
    this.#fault = fault;
  }

  override async connect(device: BackendDevice, scope: Scope): Promise<void> {
    await super.connect(device, scope);
    if (device.guest.domid !== this.#victim) return;
    const fault = this.#fault;
    this.#fault = undefined;
    await fault?.({ device, scope, domain: this.#domain });
  }
}

for (const [what, fault] of Object.entries(FAULTS)) {
  test(`${what} that throws costs its own device the connection, which is made anew`, async () => {
    const world = new World(1);
    const { runtime, dom0: domain } = world;
    const [victim, other] = [await world.run(world.guest()), await world.run(world.guest())];
    const driver = new FaultyBackend(victim.domid, { fault, domain });
    const guests = world.guests();
    const bus = await world.run(BackendBus.open({ runtime, domain, driver, guests }));
    const fronts: DrmFront[] = [];
    for (const guest of [other, victim]) {
      const device = pageDevice(guest.domid);
      await world.run(addDevice(domain.store, device));
      const front = new DrmFront(runtime, guest, device);
      await world.run(front.probe());
      fronts.push(front);
      if (guest === other) await world.until(() => front.served, 'the other one is served');
    }
    const statusOf = (domid: number) => bus.devices.find((device) => device.domid === domid)!;
    await world.until(
      () => driver.connects === 3 && fronts.every((front) => front.served && front.state === 4),
      'both are served, the victim for the second time',
    );
    await world.idle();
    assert.deepEqual(
      [statusOf(victim.domid).restarts, statusOf(victim.domid).lastError],
      [1, 'a defect of ours'],
    );
    assert.deepEqual(
      [statusOf(other.domid).restarts, statusOf(other.domid).lastError],
      [0, undefined],
    );
    assert.equal(world.refused.size, 0, 'no guest is to blame');
    const error = `/local/domain/0/error/backend/vpage/${victim.domid}/0/error`;
    assert.match(String(await world.run(victim.store.read(error))), /a defect of ours/);
    for (const guest of [victim, other]) await world.run(world.destroy(guest));
    await world.idle();
    assert.deepEqual(world.held, { mappings: 0, ports: 0, rows: 0 });
    await world.run(bus.close());
  });
}

test('a device that fails again and again is tried ever more seldom', async () => {
  const world = new World(1);
  const { runtime, dom0: domain } = world;
  const victim = await world.run(world.guest());
  const driver = new PageBackend();
  const connect = driver.connect.bind(driver);
  driver.connect = async (device, scope) => {
    await connect(device, scope);
    device.runtime.after(1, fail);
  };
  const guests = world.guests();
  const bus = await world.run(BackendBus.open({ runtime, domain, driver, guests }));
  const device = pageDevice(victim.domid);
  await world.run(addDevice(domain.store, device));
  const front = new DrmFront(runtime, victim, device);
  await world.run(front.probe());
  await world.run(sleep(runtime, 60_000));
  const { restarts } = bus.devices[0]!;
  // 100 ms, doubling up to 5 s.
  assert(restarts >= 10 && restarts <= 20, `${restarts} times in a minute`);
  driver.connect = connect;
  await world.until(() => front.served && front.state === 4, 'it is served when it does not fail');
  assert.equal(await world.backendState(device), '4');
  await world.run(bus.close());
});

test('what fails when the connection is over is told, and ends nothing', async () => {
  const world = new World(1);
  const { runtime, dom0: domain } = world;
  const guest = await world.run(world.guest());
  const driver = new PageBackend();
  const guests = world.guests();
  const bus = await world.run(BackendBus.open({ runtime, domain, driver, guests }));
  const device = pageDevice(guest.domid);
  await world.run(addDevice(domain.store, device));
  const front = new DrmFront(runtime, guest, device);
  await world.run(front.probe());
  await world.until(() => front.served && front.state === 4, 'served');
  const stale = driver.only.device.confined(fail);
  await world.run(front.remove());
  await world.idle();
  void stale();
  assert.equal(bus.devices[0]!.lastError, 'a defect of ours');
  assert.equal(bus.devices[0]!.restarts, 0);
  await world.run(front.probe());
  await world.until(() => front.served && front.state === 4, 'served again');
  await world.run(bus.close());
});
