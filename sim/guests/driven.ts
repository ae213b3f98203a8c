// The life of a guest whose display and keyboard are served by a driver domain that breaks rules (driver.ts): our own
// frontends, and a program that uses them. The toolstack gives it the devices, which it leaves after a while; then come others.
//
// It has no claim to be served. What it must get: an end to everything that it asks for, in time and by an error
// that is somebody else's; keys that are released with their keyboard; frontends that close, whatever the backend does.

import { DisplayFrontend } from '../../src/display/frontend.ts';
import type { GuestDisplay, GuestFramebuffer } from '../../src/display/guest-display.ts';
import { RGB565, XRGB8888 } from '../../src/display/pixel-format.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { KeyboardFrontend } from '../../src/input/frontend.ts';
import { KEY_MAX } from '../../src/input/kbd-events.ts';
import { messageOf, ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import type { Random } from '../../src/runtime/random.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { type Domain, GrantMapError } from '../../src/xen/domain.ts';
import type { DomId } from '../../src/xen/ids.ts';
import {
  addDevice,
  type DeviceExtra,
  eraseDevice,
  type PvDevice,
} from '../../src/xen/xenbus/toolstack.ts';
import { between, happens, oneOf, streamOf } from '../chance.ts';
import { Program } from '../program.ts';
import { programDomain } from '../program-domain.ts';
import type { Surroundings } from '../surroundings.ts';
import { DRIVEN_TYPES } from './backend-acts.ts';
import { FeltInput } from './felt-input.ts';
import { LifeWithoutClaim } from './life.ts';

/** Time for which it has its devices, and between them, in milliseconds. */
const USED_MS = [100, 6000] as const;
const PAUSE_MS = [1, 300] as const;
/** A frontend is closed by then: it waits a second for its backend, and hypercalls may be slow. */
const CLOSING_MS = 60_000;
/** One request in so many is sent many times, and nobody waits for the answers. */
const HASTE_ONE_IN = 60;
const HASTY_REQUESTS = 40;
/** Framebuffers that it has at a time. */
const SHOWN_MAX = 3;
const SHAPES = [
  { width: 16, height: 8, format: XRGB8888 },
  { width: 64, height: 48, format: XRGB8888 },
  { width: 33, height: 20, format: RGB565 },
] as const;
/** One device in so many comes with a node that says what it should not, or without it. */
const NONSENSE_ONE_IN = 5;
const NONSENSE: readonly DeviceExtra[] = [
  { readOnlyFrontend: {} },
  { readOnlyFrontend: { '0/resolution': '64' } },
  { readOnlyFrontend: { '0/resolution': '0x8' } },
  { readOnlyFrontend: { '0/resolution': '64x32x8' } },
  { readOnlyFrontend: { '0/resolution': '16x40000' } },
  { frontend: { 'backend-id': 'x' } },
  { frontend: { 'backend-id': '32752' } },
  { backend: { versions: '2' } },
  { backend: { versions: '1,'.repeat(20) } },
  { backend: { 'feature-abs-pointer': '1' } },
  { backend: { 'feature-abs-pointer': '1', width: '4294967296', height: '1' } },
];

export class DrivenGuest extends LifeWithoutClaim {
  readonly #world: Surroundings;
  readonly #program: Program;
  readonly #random: Random;
  readonly #domain: Domain;
  readonly #devices = new Set<PvDevice>();
  readonly #input: FeltInput;

  constructor(world: Surroundings, guest: Guest) {
    super(guest);
    this.#world = world;
    const { runtime, seed, faults, trace } = world;
    // Whatever its backend says, no code is one that Linux does not have.
    const mayCome = (code: number) => code <= KEY_MAX;
    this.#input = new FeltInput(world, { domid: guest.domid, mayCome });
    this.#random = streamOf(seed, `driven ${guest.domid}`);
    const random = streamOf(seed, `program ${guest.domid}`);
    this.#program = new Program({ runtime, random, log: runtime.log });
    const domain: GuestDomain = world.host.enter(guest, this.#program);
    const { store } = domain;
    world.oracle.trust(guest.domid);
    this.#domain = programDomain({
      runtime,
      program: this.#program,
      domain,
      store,
      faults,
      trace,
    });
  }

  start(): void {
    for (const type of DRIVEN_TYPES) this.#inBackground(this.#live(type));
  }

  end(): void {
    this.#program.kill();
    for (const device of this.#devices) this.#inBackground(this.#take(device));
  }

  get #alive(): boolean {
    return this.#program.alive && this.#world.runs(this.guest.domid);
  }

  /** One device of that type after the other. */
  async #live(type: (typeof DRIVEN_TYPES)[number]): Promise<void> {
    for (let devid = 0; this.#alive; devid = this.#random.below(3)) {
      const drivers = [...this.#world.drivers];
      if (drivers.length > 0) {
        const device = this.#device(type, { backendDomid: oneOf(this.#random, drivers), devid });
        await this.#give(device);
        await this.#use(device).catch((error: unknown) => this.#judge(error));
        await this.#take(device);
      }
      await sleep(this.#program, between(this.#random, ...PAUSE_MS));
    }
  }

  #device(type: string, at: { backendDomid: DomId; devid: number }): PvDevice {
    return { ...at, domid: this.guest.domid, backendType: type, frontendType: type };
  }

  /** The toolstack's doing, as is what follows. */
  async #give(device: PvDevice): Promise<void> {
    const { store } = this.#world.host.dom0;
    this.#devices.add(device);
    const usual = { 'be-alloc': happens(this.#random, 2) ? '1' : '0', '0/resolution': '64x48' };
    const said = happens(this.#random, NONSENSE_ONE_IN) ? oneOf(this.#random, NONSENSE) : {};
    await addDevice(store, device, { readOnlyFrontend: usual, ...said });
    if (!this.#alive) await this.#take(device);
  }

  async #take(device: PvDevice): Promise<void> {
    this.#devices.delete(device);
    await eraseDevice(this.#world.host.dom0.store, device);
  }

  #use(device: PvDevice): Promise<void> {
    return device.frontendType === 'vdispl' ? this.#useDisplay(device) : this.#useKeyboard(device);
  }

  async #useDisplay({ devid }: PvDevice): Promise<void> {
    let present: GuestDisplay | undefined;
    let fail: (reason: Error) => void = () => {};
    const failed = new Promise<void>((resolve) => {
      fail = (reason) => {
        this.#judge(reason);
        resolve();
      };
    });
    const frontend = await DisplayFrontend.open({
      runtime: this.#program,
      domain: this.#domain,
      devid,
      onConnected: (display) => {
        present = display;
        this.#inBackground(this.#play(display, () => present === display));
      },
      onDisconnected: () => {
        present = undefined;
      },
      onFailed: fail,
    });
    await this.#until(failed);
    await this.#close(frontend);
  }

  async #useKeyboard({ devid }: PvDevice): Promise<void> {
    let fail: () => void = () => {};
    const failed = new Promise<void>((resolve) => {
      fail = resolve;
    });
    const frontend = await KeyboardFrontend.open({
      runtime: this.#program,
      domain: this.#domain,
      devid,
      handlers: this.#input.handlers,
      onConnected: (area) => this.#input.note(area?.width ?? 0, area?.height ?? 0),
      onFailed: (reason) => {
        this.#judge(reason);
        fail();
      },
    });
    await this.#until(failed);
    await this.#close(frontend);
    this.#world.findings.hold(this.#input.keysDown === 0, 'honest-guest-progress', () => {
      return `domain ${this.guest.domid}: keys stay down when their keyboard is closed`;
    });
  }

  /** For a while, or until it is over. */
  async #until(over: Promise<void>): Promise<void> {
    await Promise.race([over, sleep(this.#program, between(this.#random, ...USED_MS))]);
  }

  /** A frontend goes away in its time, whatever its backend does. */
  async #close(frontend: AsyncDisposable): Promise<void> {
    const { runtime, findings } = this.#world;
    let closed = false;
    runtime.after(CLOSING_MS, () => {
      const detail = () => `a frontend of domain ${this.guest.domid} does not close`;
      findings.hold(closed || !this.#alive, 'left-behind', detail);
    });
    try {
      await frontend[Symbol.asyncDispose]();
    } finally {
      closed = true;
    }
  }

  /** Everything that a program does with a display, for as long as there is one. */
  async #play(display: GuestDisplay, isPresent: () => boolean): Promise<void> {
    const shown: GuestFramebuffer[] = [];
    while (isPresent() && this.#alive) {
      await this.#once(display, shown).catch((error: unknown) => this.#judge(error));
      await sleep(this.#program, 1);
    }
  }

  async #once(display: GuestDisplay, shown: GuestFramebuffer[]): Promise<void> {
    const random = this.#random;
    if (happens(random, HASTE_ONE_IN)) return this.#hurry(display);
    if (shown.length === 0 || (shown.length < SHOWN_MAX && happens(random, 6))) {
      const buffer = await display.createBuffer(oneOf(random, SHAPES));
      shown.push(await display.attach(buffer));
      return display.setMode(0, shown.at(-1));
    }
    if (!happens(random, 8)) return display.flipped(0, oneOf(random, shown));
    if (happens(random, 2)) return display.setMode(0, undefined);
    const gone = shown.shift()!;
    if (happens(random, 2)) await display.detach(gone);
    await display.destroyBuffer(gone.buffer);
  }

  /** More requests than a ring has room for, and as many flips. */
  async #hurry(display: GuestDisplay): Promise<void> {
    const asked = Array.from({ length: HASTY_REQUESTS }, () => display.setMode(0, undefined));
    for (const outcome of await Promise.allSettled(asked)) {
      if (outcome.status === 'rejected') this.#judge(outcome.reason);
    }
  }

  /** What the backend, the toolstack and the system do is to be expected; anything else is a defect of ours. */
  #judge(error: unknown): void {
    if (error instanceof AggregateError) {
      for (const each of error.errors) this.#judge(each);
      return;
    }
    const typed =
      error instanceof SysError ||
      error instanceof GrantMapError ||
      error instanceof ProtocolViolation;
    this.#world.findings.hold(typed, 'defect', () => {
      return `a frontend of domain ${this.guest.domid} with a hostile backend: ${messageOf(error)}`;
    });
  }

  #inBackground(work: Promise<void>): void {
    work.catch((error: unknown) => this.#judge(error));
  }
}
