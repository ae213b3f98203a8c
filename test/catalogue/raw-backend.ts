// A backend without manners: it shakes hands when it is told to, sees what the frontend writes, and answers with
// whatever the test wants. And the world that it is in: a guest whose frontends are ours, and no daemon.

import assert from 'node:assert/strict';
import { displReq, displResp } from '../../src/abi/displif.ts';
import { DisplayFrontend } from '../../src/display/frontend.ts';
import type { GuestDisplay } from '../../src/display/guest-display.ts';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { GuestDevices } from '../../src/hypervisor/toolstack.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import type { VirtualRuntime } from '../../src/runtime/virtual.ts';
import type { EventChannel } from '../../src/xen/domain.ts';
import { gref, port } from '../../src/xen/ids.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';
import { defectsOf, LoggedRuntime } from './logged-runtime.ts';

const MACHINE_FRAMES = 8192;
const STEPS_MAX = 200_000;
/** Longest time that a frontend may take to go away, in milliseconds: its patience with a backend, and some. */
const CLOSING_MS = 1500;
const EVENT_BYTES = 64;

type Nodes = Readonly<Record<string, string>>;
type ResponseFields = Parameters<typeof displResp.write>[2];

/** A request as the backend finds it in the ring. */
export interface SeenRequest {
  readonly id: number;
  readonly operation: number;
  readonly directory: number;
}

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

/** The backend of one device, by hand. */
export class RawBackend {
  readonly world: BackendWorld;
  /** Of the frontend's directory and of ours. */
  readonly frontend: string;
  readonly path: string;
  /** The first connector's pages, or the keyboard's one. */
  control: Uint8Array = new Uint8Array();
  events: Uint8Array = new Uint8Array();
  readonly requests: SeenRequest[] = [];
  /** Called for each request that is seen. */
  onRequest: (request: SeenRequest) => void = () => {};
  #held: AsyncDisposable[] = [];
  #controlChannel: EventChannel | undefined;
  #eventChannel: EventChannel | undefined;
  #seen = 0;
  #answered = 0;
  #sent = 0;

  constructor(world: BackendWorld, { type, kind }: { type: string; kind: string }) {
    this.world = world;
    const { domid } = world.guest;
    this.frontend = `/local/domain/${domid}/device/${kind}/0`;
    this.path = `/local/domain/0/backend/${type}/${domid}/0`;
  }

  async node(key: string, value: string | null): Promise<void> {
    const { store } = this.world.host.dom0;
    const path = `${this.path}/${key}`;
    await this.world.run(value === null ? store.remove(path) : store.write(path, value));
  }

  state(value: string | null): Promise<void> {
    return this.node('state', value);
  }

  /** Invites the frontend and connects what it publishes: `ring` and `port` name its nodes. */
  async connect(nodes: Nodes): Promise<void> {
    await this.invite();
    await this.attach(nodes);
    await this.state('4');
  }

  /** Shows InitWait, and waits until the frontend has published. */
  async invite(): Promise<void> {
    await this.state('2');
    await this.frontendIs('3');
  }

  async frontendIs(state: string): Promise<void> {
    const { store } = this.world.host.dom0;
    for (let looks = 0; looks < 1000; looks++) {
      if ((await this.world.run(store.read(`${this.frontend}/state`))) === state) return;
      await this.world.pause(1);
    }
    assert.fail(`the frontend does not get to state ${state}`);
  }

  async attach({ controlRing, controlPort, eventRing, eventPort }: Nodes): Promise<void> {
    await this.letGo();
    [this.#seen, this.#answered, this.#sent] = [0, 0, 0];
    this.control = await this.#map(controlRing!);
    // A keyboard has one page, without requests.
    const look = eventRing === undefined ? () => {} : () => this.#look();
    this.#controlChannel = await this.#bind(controlPort!, look);
    if (eventRing === undefined) return;
    this.events = await this.#map(eventRing);
    this.#eventChannel = await this.#bind(eventPort!, () => {});
  }

  /** Writes a whole response into the next slot, and moves rsp_prod by `by`. */
  answer(fields: ResponseFields, by = 1): void {
    const slot = 64 + (this.#answered % 32) * displResp.size;
    const bytes = new Uint8Array(displResp.size);
    displResp.write(new DataView(bytes.buffer), 0, fields);
    this.control.set(bytes, slot);
    this.#answered += by;
    this.word(2, this.#answered);
  }

  /** Writes an event into the next slot, and moves in_prod by one. */
  event({ id, type = 0, cookie = 0n }: { id: number; type?: number; cookie?: bigint }): void {
    const view = new DataView(this.events.buffer, this.events.byteOffset, this.events.length);
    const slot = EVENT_BYTES + (this.#sent % 63) * EVENT_BYTES;
    view.setUint16(slot, id, true);
    view.setUint8(slot + 2, type);
    view.setBigUint64(slot + 8, cookie, true);
    this.#sent += 1;
    this.eventProd(this.#sent);
  }

  /** Sets an index word of the control page and notifies. */
  word(index: number, value: number): void {
    new DataView(this.control.buffer, this.control.byteOffset).setUint32(
      4 * index,
      value >>> 0,
      true,
    );
    this.#controlChannel!.notify();
  }

  eventProd(value: number): void {
    new DataView(this.events.buffer, this.events.byteOffset).setUint32(4, value >>> 0, true);
    this.#eventChannel!.notify();
  }

  notify(): void {
    this.#controlChannel!.notify();
    this.#eventChannel?.notify();
  }

  /** Unmaps and closes everything. */
  async letGo(): Promise<void> {
    for (const held of this.#held.splice(0).reverse()) {
      await this.world.run(Promise.resolve(held[Symbol.asyncDispose]()));
    }
  }

  /** Reads what has been asked. */
  #look(): void {
    if (this.control.length === 0) return;
    const view = new DataView(this.control.buffer, this.control.byteOffset, this.control.length);
    const prod = view.getUint32(0, true);
    while (this.#seen !== prod) {
      const at = 64 + (this.#seen % 32) * displReq.size;
      this.#seen += 1;
      const request = {
        id: displReq.fields.id.get(view, at),
        operation: displReq.fields.operation.get(view, at),
        directory: displReq.fields.op.fields.dbuf_create.fields.gref_directory.get(view, at),
      };
      this.requests.push(request);
      this.onRequest(request);
    }
    view.setUint32(4, this.#seen + 1, true);
  }

  async #map(key: string): Promise<Uint8Array> {
    const { dom0 } = this.world.host;
    const ref = gref(Number(await this.world.run(dom0.store.read(`${this.frontend}/${key}`))));
    const { domid } = this.world.guest;
    const mapping = await this.world.run(dom0.foreign.map({ domid, refs: [ref], writable: true }));
    this.#held.push(mapping);
    return mapping.bytes;
  }

  async #bind(key: string, handler: () => void): Promise<EventChannel> {
    const { dom0 } = this.world.host;
    const remotePort = port(
      Number(await this.world.run(dom0.store.read(`${this.frontend}/${key}`))),
    );
    const remote = this.world.guest.domid;
    const channel = await this.world.run(
      dom0.events.bindInterdomain({ remote, remotePort, handler }),
    );
    this.#held.push(channel);
    return channel;
  }
}

/** What a display's first connector publishes. */
export const DISPLAY_NODES: Nodes = {
  controlRing: '0/req-ring-ref',
  controlPort: '0/req-event-channel',
  eventRing: '0/evt-ring-ref',
  eventPort: '0/evt-event-channel',
};

/** What a keyboard publishes. */
export const KEYBOARD_NODES: Nodes = { controlRing: 'page-gref', controlPort: 'event-channel' };

/** Our display frontend under a hostile backend. */
export class DisplayVictim {
  readonly world: BackendWorld;
  readonly backend: RawBackend;
  display: GuestDisplay | undefined;
  failure: Error | undefined;
  #frontend: DisplayFrontend | undefined;

  private constructor(world: BackendWorld) {
    this.world = world;
    this.backend = new RawBackend(world, { type: 'vdispl', kind: 'vdispl' });
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
