// A guest with two displays and two keyboards, as `vdispl=['backend=0,...','backend=0,...']` makes it: every screen has
// a number of its own that stays, every key arrives once, and what is unplugged takes nothing else with it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Daemon } from '../../src/daemon/daemon.ts';
import { DisplayFrontend } from '../../src/display/frontend.ts';
import type { GuestDisplay, GuestFramebuffer } from '../../src/display/guest-display.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { KeyboardFrontend } from '../../src/input/frontend.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { Metrics } from '../../src/server/metrics.ts';
import { RefusalCounts } from '../../src/server/refusal-counts.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { removeDevice } from '../../src/xen/xenbus/toolstack.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';
import { Program } from './program.ts';

const MACHINE_FRAMES = 16_384;
const STEPS_MAX = 300_000;

/** Connectors of each display: two of one, one of the other. */
const DISPLAYS = [
  [
    { uniqueId: 'desk', width: 64, height: 48 },
    { uniqueId: 'wall', width: 32, height: 32 },
  ],
  [{ uniqueId: 'dash', width: 96, height: 16 }],
] as const;
/** The guest-wide number of each connector, and its name. */
const SCREENS = [
  [0, 'desk'],
  [1, 'wall'],
  [16, 'dash'],
] as const;

const KEY = 30;

/** One display of the guest, which paints a colour of its own on each connector that comes. */
class Painter {
  readonly devid: number;
  display: GuestDisplay | undefined;
  readonly #framebuffers: GuestFramebuffer[] = [];

  constructor(devid: number) {
    this.devid = devid;
  }

  colour(index: number): number {
    return 0x40 + 16 * this.devid + index;
  }

  async start(runtime: VirtualRuntime, domain: GuestDomain): Promise<void> {
    const { devid } = this;
    await DisplayFrontend.open({
      runtime,
      domain,
      devid,
      onConnected: (display) => {
        this.display = display;
      },
      onDisconnected: () => {
        this.display = undefined;
      },
    });
  }

  async show(): Promise<void> {
    const display = this.display!;
    for (const [index, { width, height }] of display.connectors.entries()) {
      const buffer = await display.createBuffer({ width, height, format: XRGB8888 });
      buffer.bytes.fill(this.colour(index));
      const framebuffer = await display.attach(buffer);
      await display.setMode(index, framebuffer);
      this.#framebuffers[index] = framebuffer;
    }
  }

  flip(index: number): Promise<void> {
    return this.display!.flipped(index, this.#framebuffers[index]!);
  }
}

class TwoDevices {
  readonly runtime: VirtualRuntime;
  readonly host: XenHost;
  readonly guest: Guest;
  readonly domain: GuestDomain;
  readonly painters = [new Painter(0), new Painter(1)] as const;
  /** What each keyboard said. */
  readonly typed: [string[], string[]] = [[], []];
  program: Program;
  daemon!: Daemon;

  private constructor(host: XenHost, guest: Guest) {
    this.runtime = host.runtime as VirtualRuntime;
    this.host = host;
    this.guest = guest;
    this.domain = host.enter(guest);
    this.program = new Program(host);
  }

  static async open(): Promise<TwoDevices> {
    const runtime = new VirtualRuntime(1);
    const host = await run(runtime, XenHost.start({ runtime, machineFrames: MACHINE_FRAMES }));
    const [displays, ...furtherDisplays] = DISPLAYS;
    const keyboards = { keyboard: true, furtherKeyboards: [{}] } as const;
    const guest = await run(
      runtime,
      host.createGuest({ name: 'car', displays, furtherDisplays, ...keyboards }),
    );
    const world = new TwoDevices(host, guest);
    await world.#serve();
    return world;
  }

  async #serve(): Promise<void> {
    const { runtime, domain } = this.program;
    const options = { budget: DEFAULT_BUDGET, refreshHz: 60, hostPaths: {} };
    this.daemon = await this.run(Daemon.start({ ...options, runtime, domain }));
  }

  run<T>(promise: Promise<T>): Promise<T> {
    return run(this.runtime, promise);
  }

  until(condition: () => boolean, what: string): Promise<void> {
    return this.runtime.runUntil(condition, { what, maxSteps: STEPS_MAX });
  }

  get status() {
    return this.daemon.status().guests.find(({ name }) => name === 'car')!;
  }

  async startDisplays(devids: readonly number[]): Promise<void> {
    const { domain } = this;
    for (const devid of devids) {
      const painter = this.painters[devid]!;
      await this.run(painter.start(this.runtime, domain));
      await this.until(() => painter.display !== undefined, 'a display');
      await this.run(painter.show());
    }
  }

  async startKeyboard(devid: 0 | 1): Promise<void> {
    const { runtime, domain } = this;
    let connected = false;
    const onConnected = () => {
      connected = true;
    };
    const key = (code: number, pressed: boolean) =>
      void this.typed[devid].push(`${code} ${pressed ? 'down' : 'up'}`);
    await this.run(
      KeyboardFrontend.open({ runtime, domain, devid, onConnected, handlers: { key } }),
    );
    await this.until(() => connected, 'a keyboard');
  }

  /** `xl vdispl-detach`, or the like for keyboards. */
  unplug(frontendType: 'vdispl' | 'vkbd', devid: number): Promise<void> {
    const backendType = frontendType === 'vdispl' ? 'vdispl' : 'vinput';
    const { domid } = this.guest;
    const device = { backendDomid: DOM0, domid, devid, backendType, frontendType };
    return this.run(removeDevice(this.runtime, this.host.dom0.store, device));
  }

  /** SIGKILL, and the next one. */
  async restart(): Promise<void> {
    this.program.kill();
    for (const painter of this.painters) painter.display = undefined;
    this.program = new Program(this.host);
    await this.#serve();
  }

  /** Looks that the screens with these numbers are there, no others, and that each has its own picture. */
  async look(numbers: readonly number[]): Promise<void> {
    const expected = SCREENS.filter(([number]) => numbers.includes(number));
    const shown = () =>
      this.status.displays.filter(({ format }) => format !== null).map((one) => one.connector);
    await this.until(() => shown().length === numbers.length, 'the pictures');
    assert.deepEqual(
      this.status.displays.map(({ connector, uniqueId }) => [connector, uniqueId]),
      expected.map((screen) => [...screen]),
    );
    for (const [number] of SCREENS) {
      const bytes = this.daemon.screen(this.guest.domid, number)?.shown?.bytes;
      const colour = 0x40 + number;
      assert.equal(bytes?.[0], numbers.includes(number) ? colour : undefined, `screen ${number}`);
    }
  }

  async close(): Promise<void> {
    await this.run(this.guest.destroy());
    await this.until(() => this.daemon.status().guests.length === 0, 'the guest is forgotten');
    await this.run(this.daemon[Symbol.asyncDispose]());
    this.program.kill();
    await this.run(this.program.buried());
    assert.deepEqual(leakReport(this.host.hypervisor.books()), []);
    await this.run(this.host[Symbol.asyncDispose]());
  }
}

function run<T>(runtime: VirtualRuntime, promise: Promise<T>): Promise<T> {
  return runUntilSettled(runtime, promise, STEPS_MAX);
}

for (const order of [
  [0, 1],
  [1, 0],
]) {
  test(`two displays of one guest are told apart by number and by name, display ${order[0]} connecting first`, async () => {
    const world = await TwoDevices.open();
    await world.startDisplays(order);
    await world.look([0, 1, 16]);
    for (const painter of world.painters) {
      for (const index of painter.display!.connectors.keys()) await world.run(painter.flip(index));
    }
    const { displays, services } = world.status;
    assert.deepEqual(
      displays.map(({ devid, flips }) => [devid, flips]),
      [
        [0, 1],
        [0, 1],
        [1, 1],
      ],
    );
    const displayServices = services.filter(({ type }) => type === 'vdispl');
    assert.deepEqual(
      displayServices.map(({ restarts, lastError }) => [restarts, lastError]),
      [
        [0, null],
        [0, null],
      ],
    );
    const metrics = new Metrics(world.daemon, { viewers: () => 0, refused: new RefusalCounts() });
    const flips = (await world.run(metrics.text()))
      .split('\n')
      .filter((line) => /^flips_/.test(line));
    assert.deepEqual(
      flips,
      SCREENS.map(([number]) => `flips_total{domid="1",connector="${number}",path="browser"} 1`),
    );
    await world.close();
  });
}

for (const [gone, left] of [
  [0, [16]],
  [1, [0, 1]],
] as const) {
  test(`when display ${gone} of two is unplugged, the other keeps its numbers and goes on`, async () => {
    const world = await TwoDevices.open();
    await world.startDisplays([0, 1]);
    await world.look([0, 1, 16]);
    await world.unplug('vdispl', gone);
    await world.look(left);
    await world.run(world.painters[1 - gone]!.flip(0));
    await world.close();
  });
}

test('the daemon that follows a killed one shows both displays under the same numbers', async () => {
  const world = await TwoDevices.open();
  await world.startDisplays([0, 1]);
  await world.look([0, 1, 16]);
  await world.restart();
  for (const painter of world.painters) {
    await world.until(() => painter.display !== undefined, 'the display comes again');
    await world.run(painter.show());
  }
  await world.look([0, 1, 16]);
  await world.close();
});

test('of two keyboards the first has the keys; those of the second go up where they went down', async () => {
  const world = await TwoDevices.open();
  const { typed } = world;
  await world.startKeyboard(1);
  const input = world.daemon.input(world.guest.domid)!;
  input.key(KEY, true);
  await world.until(() => typed[1].length === 1, 'the key is down on the only keyboard there is');
  await world.startKeyboard(0);
  await world.until(() => world.status.input.state === 'connected', 'connected');
  input.key(KEY, false);
  input.key(KEY + 1, true);
  input.key(KEY + 1, false);
  await world.until(() => typed[0].length === 2 && typed[1].length === 2, 'the keys');
  assert.deepEqual(typed, [
    ['31 down', '31 up'],
    ['30 down', '30 up'],
  ]);

  input.key(KEY, true);
  await world.until(() => typed[0].length === 3, 'a key that is down on the first');
  await world.unplug('vkbd', 0);
  await world.until(() => typed[0].length === 4, 'it goes up when the keyboard does');
  assert.equal(world.daemon.input(world.guest.domid), input, 'who types notices nothing');
  input.key(KEY, false);
  input.key(KEY + 2, true);
  await world.until(() => typed[1].length === 3, 'the second one has the keys now');
  assert.deepEqual(typed, [
    ['31 down', '31 up', '30 down', '30 up'],
    ['30 down', '30 up', '32 down'],
  ]);
  await world.close();
});
