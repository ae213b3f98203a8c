// The world of a hostile backend: a guest whose frontends are ours, and domain 0 without a daemon.

import assert from 'node:assert/strict';
import { DISPLAY_NODES, RawBackend } from '../../sim/guests/raw-backend.ts';
import { DisplayFrontend } from '../../src/display/frontend.ts';
import type { GuestDisplay } from '../../src/display/guest-display.ts';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { GuestDevices } from '../../src/hypervisor/toolstack.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import type { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import type { PvDevice } from '../../src/xen/xenbus/toolstack.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';
import { defectsOf, LoggedRuntime } from './logged-runtime.ts';

const MACHINE_FRAMES = 8192;
const STEPS_MAX = 200_000;
/** Longest time that a frontend may take to go away, in milliseconds: its patience with a backend, and some. */
const CLOSING_MS = 1500;

/** The world of a hostile backend: domain 0 is the test. */
export class BackendWorld {
  readonly runtime: LoggedRuntime;
  readonly host: XenHost;
  readonly guest: Guest;
  readonly domain: GuestDomain;

  private constructor(parts: Pick<BackendWorld, 'runtime' | 'host' | 'guest' | 'domain'>) {
    this.runtime = parts.runtime;
    this.host = parts.host;
    this.guest = parts.guest;
    this.domain = parts.domain;
  }

  static async open(devices: GuestDevices): Promise<BackendWorld> {
    const runtime = new LoggedRuntime(1);
    const machineFrames = MACHINE_FRAMES;
    const host = await settled(runtime, XenHost.start({ runtime, machineFrames }));
    const guest = await settled(runtime, host.createGuest({ name: 'guest', ...devices }));
    return new BackendWorld({ runtime, host, guest, domain: host.enter(guest) });
  }

  run<T>(promise: Promise<T>): Promise<T> {
    return settled(this.runtime, promise);
  }

  until(condition: () => boolean, what: string): Promise<void> {
    return this.runtime.runUntil(condition, { what, maxSteps: STEPS_MAX });
  }

  pause(delayMs: number): Promise<void> {
    return this.run(sleep(this.runtime, delayMs));
  }

  /** The backend of the guest's first device of these types. */
  backend(types: Pick<PvDevice, 'backendType' | 'frontendType'>): RawBackend {
    const device = { ...types, backendDomid: DOM0, domid: this.guest.domid, devid: 0 };
    return new RawBackend(this, { domain: this.host.dom0, device });
  }

  /** Closes the frontend, which must take no longer than it may, and asserts that nothing is left. */
  async close(frontend: AsyncDisposable, backend: RawBackend): Promise<void> {
    const beganAtMs = this.runtime.nowMs();
    await this.run(Promise.resolve(frontend[Symbol.asyncDispose]()));
    assert(this.runtime.nowMs() - beganAtMs <= CLOSING_MS, 'a frontend that hangs while it closes');
    await backend.letGo();
    await this.run(this.guest.destroy());
    await this.until(
      () => leakReport(this.host.hypervisor.books()).length === 0,
      'nothing is left of anybody',
    );
    await this.run(Promise.resolve(this.host[Symbol.asyncDispose]()));
    assert.deepEqual(defectsOf(this.runtime), []);
  }
}

function settled<T>(runtime: VirtualRuntime, promise: Promise<T>): Promise<T> {
  return runUntilSettled(runtime, promise, STEPS_MAX);
}

/** Our display frontend under a hostile backend. */
export class DisplayVictim {
  readonly world: BackendWorld;
  readonly backend: RawBackend;
  display: GuestDisplay | undefined;
  failure: Error | undefined;
  #frontend: DisplayFrontend | undefined;

  private constructor(world: BackendWorld) {
    this.world = world;
    this.backend = world.backend({ backendType: 'vdispl', frontendType: 'vdispl' });
  }

  static async open({ beAlloc = false } = {}): Promise<DisplayVictim> {
    const displays = [{ uniqueId: 'screen', width: 64, height: 48 }];
    const victim = new DisplayVictim(await BackendWorld.open({ displays, beAlloc }));
    const { runtime, domain } = victim.world;
    victim.#frontend = await victim.world.run(
      DisplayFrontend.open({
        runtime,
        domain,
        onConnected: (display) => {
          victim.display = display;
        },
        onDisconnected: () => {
          victim.display = undefined;
        },
        onFailed: (reason) => {
          victim.failure = reason;
        },
      }),
    );
    return victim;
  }

  static async connected(options?: { beAlloc: boolean }): Promise<DisplayVictim> {
    const victim = await DisplayVictim.open(options);
    await victim.connect();
    return victim;
  }

  async connect(): Promise<void> {
    await this.backend.connect(DISPLAY_NODES);
    await this.world.until(() => this.display !== undefined, 'the frontend is connected');
  }

  /** Answers every request with success from now on. */
  serve(): void {
    this.backend.onRequest = ({ id, operation }) =>
      this.backend.answer({ id, operation, status: 0 });
  }

  close(): Promise<void> {
    return this.world.close(this.#frontend!, this.backend);
  }
}
