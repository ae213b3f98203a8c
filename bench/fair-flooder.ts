// The guests of the benchmark of fair service that flood the daemon: told over IPC with what, as fast as they can. There
// are two in this process, as one that floods its rings cannot begin anew all the time as well.

import {
  displReq,
  displSring,
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_SET_CONFIG,
} from '../src/abi/displif.ts';
import { PAGE_SIZE } from '../src/abi/page.ts';
import { DisplayFrontend } from '../src/display/frontend.ts';
import type { RequestBody } from '../src/display/frontend-connector.ts';
import { enterMachine } from '../src/hypervisor/index.ts';
import { sleep, systemRuntime, until } from '../src/runtime/runtime.ts';
import type { Scope } from '../src/runtime/scope.ts';
import type { Domain, EventChannel } from '../src/xen/domain.ts';
import { DOM0 } from '../src/xen/ids.ts';
import { writePageDirectory } from '../src/xen/page-directory.ts';
import { FrontRing, initRing } from '../src/xen/ring.ts';
import { FrontendDevice, type FrontendDriver } from '../src/xen/xenbus/frontend-device.ts';

export type Flood = 'counting' | 'requests' | 'signals' | 'store' | 'connects' | 'buffers';

/** Which floods there are from now on. */
export type FlooderOrder = readonly Flood[];

const FLOODER_CONNECTORS = 2;
/** Pages of a buffer of 3840x2160. */
const BUFFER = { width: 3840, height: 2160, bpp: 32, buffer_sz: 3840 * 2160 * 4 };
const BUFFER_PAGES = BUFFER.buffer_sz / PAGE_SIZE;
/** Pages that lie together: such a buffer takes half of the areas that a guest may have. */
const RUN_PAGES = 16;
/** Rounds of a flood between two looks at what else there is. */
const BURST = 64;
/** Between two looks at whether a flood is on. */
const IDLE_MS = 10;
/** Writes to xenstore that are on their way at a time. */
const WRITES = 16;

const runtime = systemRuntime();

/** The ring of a connector that is filled with whatever comes to hand. */
class FloodedRing {
  readonly #ring: FrontRing;
  readonly #channels: readonly EventChannel[];
  readonly #request = new Uint8Array(displReq.size);
  readonly #view = new DataView(this.#request.buffer);
  #sent = 0;

  /** `channels`: of the ring, and of the events. */
  constructor(page: Uint8Array, channels: readonly EventChannel[]) {
    initRing(page, displSring);
    this.#ring = new FrontRing(page, displSring);
    this.#channels = channels;
  }

  signal(): void {
    for (const channel of this.#channels) channel.notify();
  }

  /** Puts requests into all free slots. */
  fill(next: (count: number) => RequestBody): void {
    while (this.#ring.take() !== undefined);
    while (this.#ring.unanswered < this.#ring.size) {
      displReq.write(this.#view, 0, { id: this.#sent & 0xffff, ...next(this.#sent) });
      this.#ring.put(this.#request);
      this.#sent += 1;
    }
    this.#ring.push();
    this.#channels[0]!.notify();
  }
}

/** A display with such rings: one for buffers, and one more. */
class FloodedDisplay implements FrontendDriver {
  readonly type = 'vdispl';
  readonly rings: FloodedRing[] = [];
  connected = false;

  async publish({ domain }: FrontendDevice, scope: Scope): Promise<Record<string, string>> {
    const nodes: Record<string, string> = {};
    for (let index = 0; index < FLOODER_CONNECTORS; index++) {
      const request = { domid: DOM0, pages: 2, writable: true };
      const pages = scope.own(await domain.grants.share(request));
      const channel = async () =>
        scope.own(await domain.events.allocUnbound({ remote: DOM0, handler: () => {} }));
      const channels = [await channel(), await channel()];
      this.rings.push(new FloodedRing(pages.bytes.subarray(0, PAGE_SIZE), channels));
      nodes[`${index}/req-ring-ref`] = String(pages.refs[0]);
      nodes[`${index}/req-event-channel`] = String(channels[0]!.port);
      nodes[`${index}/evt-ring-ref`] = String(pages.refs[1]);
      nodes[`${index}/evt-event-channel`] = String(channels[1]!.port);
    }
    return nodes;
  }

  onConnected(): void {
    this.connected = true;
  }

  onFailed(reason: Error): void {
    throw reason;
  }
}

/** Requests that are refused, which costs more than doing what they ask for. */
function junk(count: number): RequestBody {
  const fb_cookie = BigInt(count + 1);
  const dbuf_cookie = fb_cookie;
  switch (count % 3) {
    case 0:
      return { operation: XENDISPL_OP_PG_FLIP, op: { pg_flip: { fb_cookie } } };
    case 1: {
      const fb_attach = { dbuf_cookie, fb_cookie, width: 64, height: 48, pixel_format: 0 };
      return { operation: XENDISPL_OP_FB_ATTACH, op: { fb_attach } };
    }
    default: {
      const set_config = { fb_cookie, x: 0, y: 0, width: 64, height: 48, bpp: 32 };
      return { operation: XENDISPL_OP_SET_CONFIG, op: { set_config } };
    }
  }
}

/** A buffer that is made and destroyed over and over; its pages are as scattered as a guest's may be. */
async function remaking(domain: Domain): Promise<(count: number) => RequestBody> {
  const request = { domid: DOM0, pages: BUFFER_PAGES, writable: false };
  const shared = await domain.grants.share(request);
  const inOddRun = (page: number) => Math.floor(page / RUN_PAGES) % 2;
  const refs = [0, 1].flatMap((odd) => shared.refs.filter((_, page) => inOddRun(page) === odd));
  const directory = await writePageDirectory(domain.grants, { domid: DOM0, refs });
  const create = { ...BUFFER, flags: 0, gref_directory: directory.refs[0]!, data_ofs: 0 };
  return (count) => {
    const dbuf_cookie = BigInt((count >>> 1) + 1);
    if (count % 2 === 1) {
      return { operation: XENDISPL_OP_DBUF_DESTROY, op: { dbuf_destroy: { dbuf_cookie } } };
    }
    const dbuf_create = { dbuf_cookie, ...create };
    return { operation: XENDISPL_OP_DBUF_CREATE, op: { dbuf_create } };
  };
}

/** A domain of its own, with a display. */
async function enter(name: string): Promise<Domain> {
  const { domain } = await enterMachine({ runtime, path: process.argv[2]!, name });
  process.send!({ domid: domain.domid });
  const state = 'device/vdispl/0/state';
  const exists = async () => (await domain.store.read(state)) !== undefined;
  await until(runtime, exists, { what: 'the toolstack gives us a display' });
  return domain;
}

let floods: FlooderOrder = [];
process.on('message', (order: FlooderOrder) => {
  floods = order;
});
process.on('disconnect', () => process.exit());

const domain = await enter('flooder');
const reconnecting = await enter('reconnecting');
const display = new FloodedDisplay();
await FrontendDevice.open({ runtime, domain, driver: display, devid: 0 });
await until(runtime, () => display.connected, { what: 'the display connects' });
const [bufferRing, otherRing] = display.rings;
const remake = await remaking(domain);
process.send!('ready');

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Does `burst` over and over while that flood is on. */
async function flood(kind: Flood, burst: () => void | Promise<void>): Promise<never> {
  for (;;) {
    if (floods.includes(kind)) await burst();
    else await sleep(runtime, IDLE_MS);
    await turn();
  }
}

function times(work: () => unknown): void {
  for (let round = 0; round < BURST; round++) work();
}

void flood('counting', () => times(() => {}));
void flood('requests', () => times(() => otherRing!.fill(junk)));
void flood('buffers', () => bufferRing!.fill(remake));
void flood('signals', () => times(() => display.rings.map((ring) => ring.signal())));
void flood('store', async () => {
  // The state itself, and nodes below it: whoever watches the state hears of all of them.
  const names = Array.from({ length: WRITES }, (_, write) => (write === 0 ? '' : `/${write}`));
  const write = (name: string) => domain.store.write(`device/vdispl/0/state${name}`, '4');
  await Promise.all(names.map(write));
});
void flood('connects', async () => {
  let connected = false;
  const onConnected = () => {
    connected = true;
  };
  const frontend = await DisplayFrontend.open({ runtime, domain: reconnecting, onConnected });
  const over = () => connected || !floods.includes('connects');
  await until(runtime, over, { what: 'it connects', intervalMs: 1 });
  await frontend.close();
});
