// A backend without manners, for tests and the simulation: it shakes hands when it is told to, sees what the frontend
// writes, and answers with whatever is wanted.

import assert from 'node:assert/strict';
import { displEvt, displReq, displResp } from '../../src/abi/displif.ts';
import { DISPLAY_EVENTS } from '../../src/display/flip-events.ts';
import { IN_RING } from '../../src/input/kbd-events.ts';
import type { Domain, EventChannel } from '../../src/xen/domain.ts';
import type { EventRingGeometry } from '../../src/xen/event-page.ts';
import { type Gref, gref, port } from '../../src/xen/ids.ts';
import { devicePaths, type PvDevice } from '../../src/xen/xenbus/toolstack.ts';

/** How the world's time is made to pass. */
export interface RawBackendWorld {
  /** What the promise gives, with the world going on until it does. */
  run<T>(promise: Promise<T>): Promise<T>;
  pause(delayMs: number): Promise<void>;
}

export interface RawBackendParts {
  /** The backend's own. */
  readonly domain: Domain;
  readonly device: PvDevice;
}

type ResponseFields = Parameters<typeof displResp.write>[2];

/** A request as the backend finds it in the ring. */
export interface SeenRequest {
  readonly id: number;
  readonly operation: number;
  /** Of a creation. */
  readonly directory: Gref;
  readonly flags: number;
  readonly bufferBytes: number;
}

/** The nodes that a frontend publishes, by what they are for. */
export interface PublishedNodes {
  readonly controlRing: string;
  readonly controlPort: string;
  /** A keyboard has none. */
  readonly eventRing?: string;
  readonly eventPort?: string;
}

/** What a display's first connector publishes. */
export const DISPLAY_NODES: PublishedNodes = {
  controlRing: '0/req-ring-ref',
  controlPort: '0/req-event-channel',
  eventRing: '0/evt-ring-ref',
  eventPort: '0/evt-event-channel',
};

/** What a keyboard publishes. */
export const KEYBOARD_NODES: PublishedNodes = {
  controlRing: 'page-gref',
  controlPort: 'event-channel',
};

const REQUESTS_OFFSET = 64;
const RING_SLOTS = 32;
const REQ_PROD = 0;
const REQ_EVENT = 1;
const RSP_PROD = 2;
/** Looks for a state of the frontend's, a millisecond apart. */
const LOOKS_MAX = 1000;

/** The backend of one device, by hand. */
export class RawBackend {
  readonly device: PvDevice;
  /** Of the frontend's directory and of ours. */
  readonly frontend: string;
  readonly path: string;
  /** The first connector's pages, or the keyboard's one. */
  control: Uint8Array = new Uint8Array();
  events: Uint8Array = new Uint8Array();
  /** Those that were seen, for whoever answers them. */
  readonly requests: SeenRequest[] = [];
  /** Called for each request that is seen. */
  onRequest: (request: SeenRequest) => void = () => {};
  readonly #world: RawBackendWorld;
  readonly #domain: Domain;
  #held: AsyncDisposable[] = [];
  #controlChannel: EventChannel | undefined;
  #eventChannel: EventChannel | undefined;
  #seen = 0;
  #answered = 0;
  #sent = 0;

  constructor(world: RawBackendWorld, { domain, device }: RawBackendParts) {
    const { frontend, backend } = devicePaths(device);
    this.#world = world;
    this.#domain = domain;
    this.device = device;
    this.frontend = frontend;
    this.path = backend;
  }

  /** Whether it has mapped what the frontend published. */
  get attached(): boolean {
    return this.#held.length > 0;
  }

  /** Events that were sent since it attached. */
  get eventsSent(): number {
    return this.#sent;
  }

  async node(key: string, value: string | null): Promise<void> {
    const { store } = this.#domain;
    const path = `${this.path}/${key}`;
    await this.#world.run(value === null ? store.remove(path) : store.write(path, value));
  }

  state(value: string | null): Promise<void> {
    return this.node('state', value);
  }

  /** What the frontend's directory says. */
  frontendNode(key: string): Promise<string | undefined> {
    return this.#world.run(this.#domain.store.read(`${this.frontend}/${key}`));
  }

  /** Invites the frontend and connects what it publishes. */
  async connect(nodes: PublishedNodes): Promise<void> {
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
    for (let looks = 0; looks < LOOKS_MAX; looks++) {
      if ((await this.frontendNode('state')) === state) return;
      await this.#world.pause(1);
    }
    assert.fail(`the frontend does not get to state ${state}`);
  }

  async attach({ controlRing, controlPort, eventRing, eventPort }: PublishedNodes): Promise<void> {
    await this.letGo();
    [this.#seen, this.#answered, this.#sent] = [0, 0, 0];
    this.requests.length = 0;
    this.control = await this.#map(controlRing);
    // A keyboard has one page, without requests.
    const look = eventRing === undefined ? () => {} : () => this.#look();
    this.#controlChannel = await this.#bind(controlPort, look);
    if (eventRing === undefined || eventPort === undefined) return;
    this.events = await this.#map(eventRing);
    this.#eventChannel = await this.#bind(eventPort, () => {});
  }

  /** Writes a whole response into the next slot, and moves rsp_prod by `by`. */
  answer(fields: ResponseFields, by = 1): void {
    const bytes = new Uint8Array(displResp.size);
    displResp.write(new DataView(bytes.buffer), 0, fields);
    this.control.set(bytes, slotOffset(this.#answered));
    this.#answered += by;
    this.word(RSP_PROD, this.#answered);
  }

  /** Writes an event into the next slot, and moves in_prod by one. */
  event({ id, type = 0, cookie = 0n }: { id: number; type?: number; cookie?: bigint }): void {
    const bytes = new Uint8Array(displEvt.size);
    displEvt.write(new DataView(bytes.buffer), 0, {
      id,
      type,
      op: { pg_flip: { fb_cookie: cookie } },
    });
    this.#put(this.events, DISPLAY_EVENTS, bytes);
    this.eventProd(this.#sent);
  }

  /** Writes the bytes of a keyboard's event into the next slot, and moves in_prod by one. */
  inputEvent(bytes: Uint8Array): void {
    this.#put(this.control, IN_RING, bytes);
    this.word(IN_RING.prodOffset / 4, this.#sent);
  }

  /** Sets an index word of the control page and notifies. */
  word(index: number, value: number): void {
    viewOf(this.control).setUint32(4 * index, value >>> 0, true);
    this.#controlChannel!.notify();
  }

  eventProd(value: number): void {
    viewOf(this.events).setUint32(DISPLAY_EVENTS.prodOffset, value >>> 0, true);
    this.#eventChannel!.notify();
  }

  notify(): void {
    this.#controlChannel!.notify();
    this.#eventChannel?.notify();
  }

  /** Unmaps and closes everything. */
  async letGo(): Promise<void> {
    [this.control, this.events] = [new Uint8Array(), new Uint8Array()];
    for (const held of this.#held.splice(0).reverse()) {
      await this.#world.run(Promise.resolve(held[Symbol.asyncDispose]()));
    }
  }

  #put(page: Uint8Array, { slotsOffset, slotBytes, slots }: EventRingGeometry, bytes: Uint8Array) {
    page.set(bytes, slotsOffset + (this.#sent % slots) * slotBytes);
    this.#sent += 1;
  }

  /** Reads what has been asked. */
  #look(): void {
    if (this.control.length === 0) return;
    const view = viewOf(this.control);
    const prod = view.getUint32(4 * REQ_PROD, true);
    const { fields } = displReq;
    const { gref_directory, flags, buffer_sz } = fields.op.fields.dbuf_create.fields;
    // Whoever is on the other side, or we ourselves, may have written anything there.
    for (let left = RING_SLOTS; left > 0 && this.#seen !== prod; left--) {
      const at = slotOffset(this.#seen);
      this.#seen += 1;
      const request = {
        id: fields.id.get(view, at),
        operation: fields.operation.get(view, at),
        directory: gref_directory.get(view, at) as Gref,
        flags: flags.get(view, at),
        bufferBytes: buffer_sz.get(view, at),
      };
      this.requests.push(request);
      this.onRequest(request);
    }
    view.setUint32(4 * REQ_EVENT, this.#seen + 1, true);
  }

  async #map(key: string): Promise<Uint8Array> {
    const ref = gref(Number(await this.frontendNode(key)));
    const { domid } = this.device;
    const request = { domid, refs: [ref], writable: true };
    const mapping = await this.#world.run(this.#domain.foreign.map(request));
    this.#held.push(mapping);
    return mapping.bytes;
  }

  async #bind(key: string, handler: () => void): Promise<EventChannel> {
    const remotePort = port(Number(await this.frontendNode(key)));
    const request = { remote: this.device.domid, remotePort, handler };
    const channel = await this.#world.run(this.#domain.events.bindInterdomain(request));
    this.#held.push(channel);
    return channel;
  }
}

function slotOffset(index: number): number {
  return REQUESTS_OFFSET + (index % RING_SLOTS) * displReq.size;
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
