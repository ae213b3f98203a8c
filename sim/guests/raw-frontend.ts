// A frontend without manners, for tests and the simulation: it shakes hands as every frontend does, and then
// writes whatever is wanted into its rings, directories and pages.

import assert from 'node:assert/strict';
import { displReq, displResp, displSring } from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { DISPLAY_EVENTS } from '../../src/display/flip-events.ts';
import type { RequestBody } from '../../src/display/frontend-connector.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';
import type { Scope } from '../../src/runtime/scope.ts';
import type { Domain, EventChannel, SharedPages } from '../../src/xen/domain.ts';
import { EventConsumer } from '../../src/xen/event-page.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { FrontRing, initRing } from '../../src/xen/ring.ts';
import { check } from '../../src/xen/untrusted.ts';
import { FrontendDevice, type FrontendDriver } from '../../src/xen/xenbus/frontend-device.ts';

/** The virtual world that the frontend is in, and how its time is made to pass. */
export interface RawWorld {
  readonly runtime: Runtime;
  /** What the promise gives, running the world until it does. */
  run<T>(promise: Promise<T>): Promise<T>;
  /** Runs the world until `condition` holds. */
  until(condition: () => boolean, what: string): Promise<void>;
}

export interface RawResponse {
  readonly id: number;
  readonly operation: number;
  readonly status: number;
  /** Everything behind the status. */
  readonly rest: readonly number[];
}

/** Where the indices of a connector's rings begin: 0 with every driver that there is. */
export interface RingStart {
  readonly requests: number;
  readonly events: number;
}

/** The rings of one connector of a raw frontend. */
export class RawConnector {
  readonly control: Uint8Array;
  readonly events: Uint8Array;
  readonly ring: FrontRing;
  readonly eventRing: EventConsumer;
  readonly responses: RawResponse[] = [];
  /** Ids of the flip events. */
  readonly eventIds: number[] = [];
  readonly #world: RawWorld;
  #channel: EventChannel | undefined;
  #nextId = 0;

  constructor(world: RawWorld, pages: SharedPages, { requests, events }: RingStart) {
    this.#world = world;
    this.control = pages.bytes.subarray(0, PAGE_SIZE);
    this.events = pages.bytes.subarray(PAGE_SIZE);
    initRing(this.control, displSring);
    this.words.set([requests, requests + 1, requests, requests + 1]);
    new Uint32Array(this.events.buffer, this.events.byteOffset, 2).fill(events);
    this.ring = new FrontRing(this.control, displSring);
    this.eventRing = new EventConsumer(this.events, DISPLAY_EVENTS);
  }

  use(channel: EventChannel): void {
    this.#channel = channel;
  }

  notify(): void {
    this.#channel!.notify();
  }

  /** The index words of the control ring: req_prod, req_event, rsp_prod, rsp_event. */
  get words(): Uint32Array {
    return new Uint32Array(this.control.buffer, this.control.byteOffset, 4);
  }

  collect(): void {
    for (let taken = this.ring.take(); taken !== undefined; taken = this.ring.take()) {
      this.responses.push(
        check(taken, (view) => ({
          id: displResp.fields.id.get(view, 0),
          operation: displResp.fields.operation.get(view, 0),
          status: displResp.fields.status.get(view, 0),
          rest: [...new Uint8Array(view.buffer, view.byteOffset + 8, 56)],
        })),
      );
    }
    this.ring.finalCheck();
  }

  collectEvents(): void {
    for (let taken = this.eventRing.next(); taken !== undefined; taken = this.eventRing.next()) {
      this.eventIds.push(check(taken, (view) => view.getUint16(0, true)));
    }
  }

  /** Puts a request into the ring. @returns its id */
  put(body: RequestBody, spoil: (bytes: Uint8Array) => void = () => {}): number {
    const id = this.#nextId++ & 0xffff;
    const bytes = new Uint8Array(64);
    displReq.write(new DataView(bytes.buffer), 0, { id, ...body });
    spoil(bytes);
    assert(this.ring.put(bytes), 'the ring is full');
    return id;
  }

  push(): void {
    this.ring.push();
    this.notify();
  }

  /** Sends a request and waits for the status that answers it. */
  async ask(body: RequestBody, spoil?: (bytes: Uint8Array) => void): Promise<number> {
    const id = this.put(body, spoil);
    this.push();
    const answer = () => this.responses.find((response) => response.id === id);
    await this.#world.until(() => answer() !== undefined, `request ${id} is answered`);
    assert.equal(answer()!.operation, body.operation, 'the operation is echoed (trap 5)');
    return answer()!.status;
  }
}

/** On the hypervisor in this process, or wherever `guest` is. */
export class RawFrontend<Guest extends Domain = GuestDomain> implements FrontendDriver {
  readonly type = 'vdispl';
  readonly guest: Guest;
  readonly connectors: RawConnector[] = [];
  /** Changes what is published: values by key, null for none. */
  spoil: Readonly<Record<string, string | null>> = {};
  startAt: RingStart = { requests: 0, events: 0 };
  /** Called before anything is published. */
  beforePublishing: () => void = () => {};
  /** What an honest driver would have published the last time, by key. */
  published: Readonly<Record<string, string>> = {};
  /** The event channels of the present connection. */
  readonly channels: EventChannel[] = [];
  connections = 0;
  failure: Error | undefined;
  readonly #world: RawWorld;
  readonly #count: number;
  #device: FrontendDevice | undefined;

  constructor(world: RawWorld, guest: Guest, { connectors }: { connectors: number }) {
    this.#world = world;
    this.guest = guest;
    this.#count = connectors;
  }

  /** Starts the device, without waiting for anything. */
  async start(): Promise<void> {
    const { runtime } = this.#world;
    const options = { runtime, domain: this.guest, driver: this, devid: 0 };
    this.#device = await this.#world.run(FrontendDevice.open(options));
  }

  async open(): Promise<void> {
    await this.start();
    await this.connectedAgain(1);
  }

  connectedAgain(times: number): Promise<void> {
    return this.#world.until(() => this.connections >= times, `connection ${times}`);
  }

  async publish(_device: FrontendDevice, scope: Scope): Promise<Record<string, string>> {
    this.connectors.length = 0;
    this.channels.length = 0;
    const nodes: Record<string, string> = {};
    for (let index = 0; index < this.#count; index++) {
      const request = { domid: DOM0, pages: 2, writable: true };
      const pages = scope.own(await this.guest.grants.share(request));
      const connector = new RawConnector(this.#world, pages, this.startAt);
      const channel = async (handler: () => void) =>
        scope.own(await this.guest.events.allocUnbound({ remote: DOM0, handler }));
      const control = await channel(() => connector.collect());
      const events = await channel(() => connector.collectEvents());
      connector.use(control);
      this.channels.push(control, events);
      this.connectors.push(connector);
      nodes[`${index}/req-ring-ref`] = String(pages.refs[0]);
      nodes[`${index}/req-event-channel`] = String(control.port);
      nodes[`${index}/evt-ring-ref`] = String(pages.refs[1]);
      nodes[`${index}/evt-event-channel`] = String(events.port);
    }
    this.published = nodes;
    this.beforePublishing();
    const spoiled = Object.entries({ ...nodes, ...this.spoil });
    return Object.fromEntries(spoiled.filter((node): node is [string, string] => node[1] !== null));
  }

  onConnected(): void {
    this.connections += 1;
  }

  onFailed(reason: Error): void {
    this.failure = reason;
  }

  async close(): Promise<void> {
    await this.#world.run(this.#device!.close());
  }
}
