import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { GuestInputs, KeyboardBackend } from '../../src/input/backend.ts';
import { KeyboardFrontend } from '../../src/input/frontend.ts';
import type { GuestInput } from '../../src/input/guest-input.ts';
import { decodeKbdEvent, FIRST_BUTTON, type KbdEvent } from '../../src/input/kbd-events.ts';
import type { Domain, MapRequest } from '../../src/xen/domain.ts';
import { DOM0, type DomId } from '../../src/xen/ids.ts';
import { BackendBus } from '../../src/xen/xenbus/backend-bus.ts';
import {
  addDevice,
  devicePaths,
  type PvDevice,
  removeDevice,
} from '../../src/xen/xenbus/toolstack.ts';
import type { Budget } from '../../src/zcopy/budget.ts';
import { eagerChannels } from '../xen/eager-channels.ts';
import { World } from '../xen/xenbus/world.ts';

const NOTHING = { mappings: 0, ports: 0, rows: 0 };
const IN_SLOTS = 51;

function keyboard(domid: DomId): PvDevice {
  return { backendDomid: DOM0, backendType: 'vinput', domid, frontendType: 'vkbd', devid: 0 };
}

async function openBus(world: World, domain: Domain = world.dom0) {
  const { runtime } = world;
  const inputs = new GuestInputs();
  const driver = new KeyboardBackend({ type: 'vinput', inputs });
  const bus = await world.run(
    BackendBus.open({ runtime, domain, driver, guests: world.guests(domain) }),
  );
  return { bus, inputs };
}

interface HostOptions {
  readonly seed?: number;
  readonly budget?: Partial<Budget>;
  /** Nodes that the toolstack writes for the backend. */
  readonly nodes?: Readonly<Record<string, string>>;
}

async function host({ seed = 1, budget = {}, nodes = {} }: HostOptions = {}) {
  const world = new World(seed, budget);
  const { bus, inputs } = await openBus(world);
  const guest = await world.run(world.guest());
  const device = keyboard(guest.domid);
  await world.run(addDevice(world.dom0.store, device, { backend: nodes }));
  return { world, bus, inputs, guest, device };
}

/** The Linux driver's side by hand: a page, a port, and whatever the test does with them. */
async function rawKeyboard(
  world: World,
  guest: GuestDomain,
  device: PvDevice,
  requests: Readonly<Record<string, string>> = { 'request-abs-pointer': '1' },
) {
  const page = await world.run(guest.grants.share({ domid: DOM0, pages: 1, writable: true }));
  let notified = 0;
  const handler = () => {
    notified += 1;
  };
  const channel = await world.run(guest.events.allocUnbound({ remote: DOM0, handler }));
  const view = new DataView(page.bytes.buffer, page.bytes.byteOffset);
  const { frontend } = devicePaths(device);
  const nodes = { 'page-gref': `${page.refs[0]}`, 'event-channel': `${channel.port}`, ...requests };
  for (const [key, value] of Object.entries({ ...nodes, state: '3' })) {
    await world.run(guest.store.write(`${frontend}/${key}`, value));
  }
  /** As Linux: from in_cons to in_prod, slot = index % 51, then in_cons and a notification. */
  const take = (most = Number.POSITIVE_INFINITY): KbdEvent[] => {
    const events: KbdEvent[] = [];
    const prod = view.getUint32(4, true);
    let cons = view.getUint32(0, true);
    assert((prod - cons) >>> 0 <= IN_SLOTS, 'never more in the ring than it has slots');
    for (; cons !== prod && events.length < most; cons = (cons + 1) >>> 0) {
      const slot = new DataView(new ArrayBuffer(40));
      const start = 1024 + (cons % IN_SLOTS) * 40;
      new Uint8Array(slot.buffer).set(page.bytes.subarray(start, start + 40));
      events.push(decodeKbdEvent(slot)!);
    }
    view.setUint32(0, cons, true);
    channel.notify();
    return events;
  };
  const state = (value: string) => world.run(guest.store.write(`${frontend}/state`, value));
  return { page, channel, view, take, state, notifications: () => notified };
}

/** Takes until nothing more comes. */
async function takeAll(world: World, take: () => KbdEvent[]): Promise<KbdEvent[]> {
  const events: KbdEvent[] = [];
  for (;;) {
    await world.idle();
    const some = take();
    if (some.length === 0) return events;
    events.push(...some);
  }
}

async function connected(world: World, inputs: GuestInputs, domid: DomId): Promise<GuestInput> {
  await world.until(() => inputs.get(domid)?.state === 'connected', 'the input is connected');
  return inputs.get(domid)!;
}

/** What is down after these events; presses and releases must alternate, but for keys that repeat. */
function down(events: readonly KbdEvent[]): Set<number> {
  const pressed = new Set<number>();
  for (const event of events) {
    if (event.kind !== 'key') continue;
    const repeats = event.pressed && event.code < FIRST_BUTTON;
    assert(repeats || pressed.has(event.code) === !event.pressed, `key ${event.code}`);
    if (event.pressed) pressed.add(event.code);
    else pressed.delete(event.code);
  }
  return pressed;
}

test('both ends of ours: keys, pointer, wheel and touches arrive as what they are', async () => {
  const { world, bus, inputs, guest } = await host({
    nodes: { 'feature-abs-pointer': '1', width: '640', height: '480' },
  });
  const seen: unknown[] = [];
  const { runtime } = world;
  const front = await world.run(
    KeyboardFrontend.open({
      runtime,
      domain: guest,
      handlers: {
        key: (code, pressed) => seen.push(['key', code, pressed]),
        motion: (dx, dy) => seen.push(['motion', dx, dy]),
        position: (x, y) => seen.push(['position', x, y]),
        wheel: (delta) => seen.push(['wheel', delta]),
        touch: (contact, place) => seen.push(['touch', contact, place]),
        sync: () => seen.push(['sync']),
      },
      onConnected: (area) => seen.push(['area', area]),
    }),
  );
  const input = await connected(world, inputs, guest.domid);
  await world.idle();
  assert.deepEqual(input.area, { width: 640, height: 480 });
  input.key(30, true);
  input.key(30, false);
  input.position(100, 1000);
  input.wheel(2);
  input.motion(5, -9);
  input.touch({ contact: 1, phase: 'down', x: 1, y: 2 });
  input.touch({ contact: 1, phase: 'move', x: 3, y: 4 });
  input.touch({ contact: 1, phase: 'up', x: 3, y: 4 });
  await world.idle();
  assert.deepEqual(seen, [
    ['area', { width: 640, height: 480 }],
    ['key', 30, true],
    ['key', 30, false],
    ['position', 100, 479],
    ['wheel', 2],
    ['position', 105, 470],
    ['touch', 1, { x: 1, y: 2 }],
    ['sync'],
    ['touch', 1, { x: 3, y: 4 }],
    ['sync'],
    ['touch', 1, undefined],
    ['sync'],
  ]);
  await world.run(front.close());
  await world.idle();
  assert.equal(inputs.get(guest.domid)?.state, 'waiting');
  await world.run(bus.close());
  assert.deepEqual(world.held, NOTHING);
});

test('what a turn sends costs one notification', async () => {
  const { world, bus, inputs, guest, device } = await host();
  const front = await rawKeyboard(world, guest, device);
  const input = await connected(world, inputs, guest.domid);
  await world.idle();
  const before = front.notifications();
  for (let code = 1; code <= 20; code++) input.key(code, true);
  await world.idle();
  assert.equal(front.notifications(), before + 1);
  assert.equal(front.take().length, 20);
  await world.run(bus.close());
});

test('a guest that takes nothing loses movements, never a release', async () => {
  const { world, bus, inputs, guest, device } = await host();
  const front = await rawKeyboard(world, guest, device);
  const input = await connected(world, inputs, guest.domid);
  for (let round = 0; round < 40; round++) {
    for (let code = 1; code <= 100; code++) {
      input.key(code, true);
      input.position(code, round);
      if (code % 3 === 0) input.key(code, false);
    }
    await world.idle();
  }
  input.releaseAll();
  const events = await takeAll(world, front.take);
  assert.deepEqual(down(events), new Set());
  assert(events.filter(({ kind }) => kind === 'key').length >= 100);
  await world.run(bus.close());
});

test('property: whatever is typed and however the guest takes it, nothing stays down', async () => {
  const steps = fc.array(
    fc.record({
      code: fc.integer({ min: 0, max: 0x300 }),
      action: fc.constantFrom(
        'press',
        'press',
        'release',
        'move',
        'wheel',
        'touch',
        'take',
        'wait',
      ),
      amount: fc.integer({ min: 0, max: 60 }),
    }),
    { maxLength: 300, size: 'max' },
  );
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 2 ** 31 }), steps, async (seed, script) => {
      const { world, bus, inputs, guest, device } = await host({ seed });
      const front = await rawKeyboard(world, guest, device, { 'request-multi-touch': '1' });
      const input = await connected(world, inputs, guest.domid);
      const events: KbdEvent[] = [];
      for (const { code, action, amount } of script) {
        if (action === 'press') input.key(code, true);
        if (action === 'release') input.key(code, false);
        if (action === 'move') input.motion(amount, -amount);
        if (action === 'wheel') input.wheel(amount - 30);
        const phase = amount % 2 === 0 ? 'down' : 'up';
        if (action === 'touch') input.touch({ contact: code % 12, phase, x: amount, y: amount });
        if (action === 'take') events.push(...front.take(amount));
        if (action === 'wait') for (let turn = 0; turn < amount; turn++) await world.runtime.step();
      }
      input.releaseAll();
      events.push(...(await takeAll(world, () => front.take())));
      assert.deepEqual(down(events), new Set());
      const touching = new Set<number>();
      for (const event of events) {
        if (event.kind === 'down') touching.add(event.contact);
        if (event.kind === 'up') touching.delete(event.contact);
        if ('contact' in event) assert(event.contact < 10);
        if (event.kind === 'key') assert(event.code >= 1 && event.code <= 0x2ff);
      }
      assert.equal(touching.size, 0);
      await world.run(bus.close());
    }),
    { numRuns: 40 },
  );
});

test('a relative pointer gets movements, an absolute one positions, a raw one its own scale', async () => {
  const nodes = { 'feature-raw-pointer': '1', width: '100', height: '50' };
  const cases = [
    { requests: {}, area: [100, 50], expected: ['motion 3 4', 'motion 10 5'] },
    {
      requests: { 'request-abs-pointer': '1' },
      area: [100, 50],
      expected: ['position 53 29', 'position 20 10', 'position 30 15'],
    },
    {
      requests: { 'request-abs-pointer': '1', 'request-raw-pointer': '1' },
      area: [0x8000, 0x8000],
      expected: ['position 16387 16388', 'position 20 10', 'position 30 15'],
    },
    // Raw positions are for absolute pointers only.
    {
      requests: { 'request-raw-pointer': '1' },
      area: [100, 50],
      expected: ['motion 3 4', 'motion 10 5'],
    },
  ];
  for (const { requests, area, expected } of cases) {
    const { world, bus, inputs, guest, device } = await host({ nodes });
    const front = await rawKeyboard(world, guest, device, requests);
    const input = await connected(world, inputs, guest.domid);
    assert.deepEqual(input.area, { width: area[0], height: area[1] });
    const events: KbdEvent[] = [];
    const moves = [
      () => input.motion(3, 4),
      () => input.position(20, 10),
      () => input.position(30, 15),
    ];
    for (const move of moves) {
      move();
      events.push(...(await takeAll(world, front.take)));
    }
    const told = events.map((event) => {
      if (event.kind === 'motion') return `motion ${event.dx} ${event.dy}`;
      return event.kind === 'position' ? `position ${event.x} ${event.y}` : event.kind;
    });
    assert.deepEqual(told, expected, JSON.stringify(requests));
    await world.run(bus.close());
  }
});

test('without a touch screen the first finger is the pointer with its left button', async () => {
  const { world, bus, inputs, guest, device } = await host({
    nodes: { 'feature-multi-touch': '0' },
  });
  const front = await rawKeyboard(world, guest, device);
  const input = await connected(world, inputs, guest.domid);
  input.touch({ contact: 3, phase: 'down', x: 10, y: 20 });
  input.touch({ contact: 4, phase: 'down', x: 90, y: 90 });
  input.touch({ contact: 3, phase: 'move', x: 11, y: 21 });
  input.touch({ contact: 3, phase: 'up', x: 12, y: 22 });
  input.touch({ contact: 4, phase: 'up', x: 90, y: 90 });
  assert.deepEqual(await takeAll(world, front.take), [
    { kind: 'position', x: 10, y: 20, wheel: 0 },
    { kind: 'key', code: 0x110, pressed: true },
    { kind: 'position', x: 11, y: 21, wheel: 0 },
    { kind: 'position', x: 12, y: 22, wheel: 0 },
    { kind: 'key', code: 0x110, pressed: false },
  ]);
  await world.run(bus.close());
});

test('a further press of a key is its autorepeat; a button does not repeat, a release is one', async () => {
  const { world, bus, inputs, guest, device } = await host();
  const front = await rawKeyboard(world, guest, device);
  const input = await connected(world, inputs, guest.domid);
  for (const code of [30, 0x110]) {
    for (let press = 0; press < 3; press++) input.key(code, true);
    input.key(code, false);
    input.key(code, false);
  }
  const told = (await takeAll(world, front.take)).map((event) => {
    return event.kind === 'key' && [event.code, event.pressed];
  });
  assert.deepEqual(told, [
    [30, true],
    [30, true],
    [30, true],
    [30, false],
    [0x110, true],
    [0x110, false],
  ]);
  await world.run(bus.close());
});

test('codes, positions and contacts outside of their ranges never reach a guest', async () => {
  const { world, bus, inputs, guest, device } = await host();
  const front = await rawKeyboard(world, guest, device, { 'request-multi-touch': '1' });
  const input = await connected(world, inputs, guest.domid);
  for (const code of [0, -1, 0x300, 2 ** 32, 1.5, Number.NaN]) input.key(code, true);
  input.motion(Number.NaN, 0);
  input.wheel(Number.POSITIVE_INFINITY);
  for (const contact of [-1, 10, 255, 256, 0.5]) {
    input.touch({ contact, phase: 'down', x: 0, y: 0 });
  }
  assert.deepEqual(await takeAll(world, front.take), []);
  await world.run(bus.close());
});

test('keys that are down when the daemon goes are released before it is gone', async () => {
  const { world, bus, inputs, guest, device } = await host();
  const front = await rawKeyboard(world, guest, device);
  const input = await connected(world, inputs, guest.domid);
  input.key(42, true);
  input.key(30, true);
  await world.idle();
  await world.run(bus.close());
  assert.deepEqual(down(front.take()), new Set());
  assert.equal(input.state, 'closed');
  input.key(31, true);
  assert.equal(inputs.get(guest.domid), undefined);
});

test('keys that a daemon left down when it died are released by the next one', async () => {
  const { world, bus, inputs, guest, device } = await host();
  const front = await rawKeyboard(world, guest, device, { 'request-multi-touch': '1' });
  const input = await connected(world, inputs, guest.domid);
  input.key(42, true);
  input.touch({ contact: 2, phase: 'down', x: 1, y: 1 });
  await world.idle();
  const events = front.take();
  // What a dead daemon leaves: a page with a history, and nobody who knows what is down.
  await world.run(bus.close());
  await world.idle();
  front.view.setUint32(4, front.view.getUint32(0, true), true);
  const next = await openBus(world);
  await front.state('4');
  await connected(world, next.inputs, guest.domid);
  const released = await takeAll(world, front.take);
  events.push(...released.filter((event) => event.kind !== 'key' || event.code === 42));
  assert.deepEqual(down(events), new Set());
  assert(released.some((event) => event.kind === 'up' && event.contact === 2));
  assert(released.every((event) => event.kind !== 'key' || !event.pressed));
  await world.run(next.bus.close());
});

test('a page is not written to when its frontend began anew while it was mapped (killed at step 472, seed 1)', async () => {
  const { world, bus, inputs, guest, device } = await host();
  const front = await rawKeyboard(world, guest, device);
  await connected(world, inputs, guest.domid);
  await front.state('4');
  await world.run(bus.close());
  // A page with a history, as a daemon that was killed leaves it: its successor releases all keys in it.
  front.view.setUint32(0, front.view.getUint32(4, true) + 1, true);
  front.view.setUint32(4, front.view.getUint32(4, true) + 1, true);
  await front.state('4');
  const { foreign } = world.dom0;
  let maps = 0;
  const domain = Object.create(world.dom0, {
    foreign: {
      value: {
        map: async (request: MapRequest) => {
          maps += 1;
          // The frontend says that it begins anew, and its page is one of something else from now on.
          if (maps === 1) {
            await guest.store.write(`${devicePaths(device).frontend}/state`, '7');
            front.page.bytes.fill(0x77);
          }
          return foreign.map(request);
        },
      },
    },
  }) as Domain;
  const next = await openBus(world, domain);
  await world.until(() => maps === 1, 'the page is mapped');
  await world.idle();
  assert(front.page.bytes.every((byte) => byte === 0x77));
  assert.equal(await world.backendState(device), '6');
  front.page.bytes.fill(0);
  await front.state('3');
  await connected(world, next.inputs, guest.domid);
  await world.run(next.bus.close());
});

test('a frontend that breaks the ring is disconnected and may come again', async () => {
  const breaks = [
    { offset: 0, value: 5000, reason: 'event-cons-overflow' },
    { offset: 12, value: 26, reason: 'event-prod-overflow' },
  ];
  for (const { offset, value, reason } of breaks) {
    const { world, bus, inputs, guest, device } = await host();
    const front = await rawKeyboard(world, guest, device);
    const input = await connected(world, inputs, guest.domid);
    front.view.setUint32(offset, value, true);
    input.key(30, true);
    front.channel.notify();
    await world.until(() => world.refused.has(reason), `${reason} is counted`);
    await world.until(() => inputs.get(guest.domid)?.state === 'waiting', 'disconnected');
    const path = `/local/domain/0/error/backend/vinput/${guest.domid}/0/error`;
    await world.until(() => bus.devices[0]?.lastError !== undefined, 'the reason is kept');
    front.view.setUint32(0, front.view.getUint32(4, true), true);
    front.view.setUint32(12, front.view.getUint32(8, true), true);
    await connected(world, inputs, guest.domid);
    assert.match((await world.run(guest.store.read(path)))!, new RegExp(`^5 ${reason}: `));
    await world.run(bus.close());
  }
});

test('out events, of which there are none, are consumed and counted, a ring’s worth per wake-up', async () => {
  const { world, bus, inputs, guest, device } = await host();
  const front = await rawKeyboard(world, guest, device);
  await connected(world, inputs, guest.domid);
  front.view.setUint32(12, 25, true);
  front.channel.notify();
  await world.idle();
  assert.equal(front.view.getUint32(8, true), 25);
  assert.equal(world.refused.get('unknown-out-event'), 25);
  await world.run(bus.close());
});

test('a storm of notifications slows its own channel down, and is counted', async () => {
  const { world, bus, inputs, guest, device } = await host({ budget: { wakeupsPerSecond: 1000 } });
  const front = await rawKeyboard(world, guest, device);
  const input = await connected(world, inputs, guest.domid);
  const sinceMs = world.runtime.nowMs();
  for (let notification = 0; notification < 2000; notification++) {
    front.channel.notify();
    await world.runtime.step();
  }
  await world.idle();
  assert(world.runtime.nowMs() > sinceMs, 'the channel was paused');
  const [account] = world.ledger.accounts;
  assert(account!.throttled.wakeupsPerSecond! > 0);
  input.key(30, true);
  assert.equal((await takeAll(world, front.take)).length, 1);
  await world.run(bus.close());
});

test('malformed nodes of a keyboard are refused (X1)', async () => {
  const cases: [string, string][] = [
    ['page-gref', ''],
    ['page-gref', '0'],
    ['page-gref', '-8'],
    ['page-gref', '8 '],
    ['event-channel', '0x1'],
    ['event-channel', '4294967296'],
    ['page-gref', '1e1'],
  ];
  for (const [key, value] of cases) {
    const { world, bus, inputs, guest, device } = await host();
    await rawKeyboard(world, guest, device, { [key]: value });
    await world.until(() => world.refused.size > 0, `${key} = ${value} is refused`);
    assert.notEqual(inputs.get(guest.domid)?.state, 'connected');
    await world.run(removeDevice(world.runtime, world.dom0.store, device));
    await world.run(bus.close());
    assert.deepEqual(world.held, NOTHING);
  }
});

test('the pointer has the size of the first display when nobody says otherwise', async () => {
  const world = new World(1);
  const { bus, inputs } = await openBus(world);
  const guest = await world.run(world.guest());
  const display = `/local/domain/${guest.domid}/device/vdispl/0/0/resolution`;
  await world.run(world.dom0.store.write(display, '1920x1080'));
  const device = keyboard(guest.domid);
  await world.run(addDevice(world.dom0.store, device));
  await world.until(() => inputs.get(guest.domid) !== undefined, 'announced');
  assert.deepEqual(inputs.get(guest.domid)!.area, { width: 1920, height: 1080 });
  await world.idle();
  const { backend } = devicePaths(device);
  assert.equal(await world.run(world.dom0.store.read(`${backend}/width`)), '1920');
  assert.equal(await world.run(world.dom0.store.read(`${backend}/feature-abs-pointer`)), '1');
  await world.run(bus.close());
});

test('an event before a frontend has its channel concerns nobody (seed 758800519)', async () => {
  const { world, bus, inputs, guest } = await host();
  const failures: Error[] = [];
  const front = await world.run(
    KeyboardFrontend.open({
      runtime: world.runtime,
      domain: eagerChannels(guest),
      handlers: {},
      onFailed: (reason) => failures.push(reason),
    }),
  );
  await world.until(
    () => inputs.get(guest.domid)?.state === 'connected' || failures.length > 0,
    'the keyboard connects',
  );
  assert.deepEqual(failures, []);
  await world.run(front.close());
  await world.idle();
  await world.run(bus.close());
  assert.deepEqual(world.held, NOTHING);
});
