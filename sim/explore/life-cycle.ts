// The life of display buffers, small enough to be explored whole: two guests, a buffer each (one of the guest's own
// pages, one that the backend lends), one output. The connections, buffers, releases and the ledger are the real code.
//
// Each guest asks for one thing after the other (create, attach, mode, flip, destroy), and may die at any moment,
// as may the backend; the lent buffer is mapped, and let go, whenever the guest likes; the output completes a flip and
// lets go of a picture whenever it likes; and time may go on at any moment.

import {
  displReq,
  displResp,
  displSring,
  XENDISPL_DBUF_FLG_REQ_ALLOC,
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_SET_CONFIG,
} from '../../src/abi/displif.ts';
import { Connection } from '../../src/display/connection.ts';
import type { RequestBody } from '../../src/display/frontend-connector.ts';
import type { DisplayOutput, OutputConnector, Picture } from '../../src/display/output.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import type { Scope } from '../../src/runtime/scope.ts';
import type { DomId, Gref } from '../../src/xen/ids.ts';
import { FrontRing, initRing } from '../../src/xen/ring.ts';
import { check, distrust } from '../../src/xen/untrusted.ts';
import type { BackendDevice, GuestContext } from '../../src/xen/xenbus/driver.ts';
import { openGuest } from '../../src/zcopy/guest.ts';
import { type Account, DEFAULT_BUDGET, Ledger } from '../../src/zcopy/ledger.ts';
import { ChoiceRuntime, OTHERS } from './choices.ts';
import { type GrantTable, ModelDomain, newPage, type Page } from './model-domain.ts';

const BUDGET = { ...DEFAULT_BUDGET, pages: 8, refs: 16, buffers: 2, framebuffers: 2, poolPages: 2 };
const CONTROL = 8 as Gref;
const EVENTS = 9 as Gref;
const DIRECTORY = 10 as Gref;
const PIXELS = 11 as Gref;
const SIDE = 8;
const NODES: Readonly<Record<string, string>> = {
  version: '1',
  '0/resolution': `${SIDE}x${SIDE}`,
  '0/unique-id': 'screen',
  '0/req-ring-ref': `${CONTROL}`,
  '0/req-event-channel': '1',
  '0/evt-ring-ref': `${EVENTS}`,
  '0/evt-event-channel': '2',
};
/** Whose memory a guest's buffer is: its own, or lent by the backend. */
export type BufferKind = 'own' | 'lent';

const SCRIPT = ['create', 'attach', 'mode', 'flip', 'destroy'] as const;

/** What the code under test did that it must not. */
export class Broken extends Error {}

function hold(holds: boolean, what: string): void {
  if (!holds) throw new Broken(what);
}

/** A guest and the backend's side of it. */
class GuestSide {
  readonly domid: DomId;
  readonly lends: boolean;
  readonly table: GrantTable = new Map();
  readonly ring: FrontRing;
  readonly context: GuestContext;
  readonly account: Account;
  readonly scope: Scope;
  readonly pages = [newPage(), newPage(), newPage(), newPage()] as const;
  asked = 0;
  readonly answers: number[] = [];
  alive = true;
  /** Pages of the backend's that it maps. */
  mapped: Page[] = [];
  connecting: Promise<void> = Promise.resolve();
  closed: 'no' | 'closing' | 'closed' = 'no';

  constructor(domid: DomId, { lends, runtime, domain, ledger }: GuestSideOptions) {
    this.domid = domid;
    this.lends = lends;
    const options = { runtime, domain, ledger, budget: BUDGET, domid, name: `guest-${domid}` };
    const { context, account } = openGuest(options);
    this.context = context;
    this.account = account;
    this.scope = context.scope.child('connection');
    for (const [index, ref] of [CONTROL, EVENTS, DIRECTORY, PIXELS].entries()) {
      this.table.set(ref, this.pages[index]!);
    }
    initRing(this.pages[0].bytes, displSring);
    this.ring = new FrontRing(this.pages[0].bytes, displSring);
    new Uint32Array(this.pages[2].bytes.buffer)[1] = lends ? 0 : PIXELS;
    domain.tables.set(domid, this.table);
  }

  /** The request that comes next in its life. */
  get request(): RequestBody {
    const next = SCRIPT[this.asked]!;
    switch (next) {
      case 'create': {
        const shape = { dbuf_cookie: 1n, width: SIDE, height: SIDE, bpp: 32, data_ofs: 0 };
        const flags = this.lends ? XENDISPL_DBUF_FLG_REQ_ALLOC : 0;
        const dbuf_create = {
          ...shape,
          buffer_sz: SIDE * SIDE * 4,
          flags,
          gref_directory: DIRECTORY,
        };
        return { operation: XENDISPL_OP_DBUF_CREATE, op: { dbuf_create } };
      }
      case 'attach': {
        const of = { dbuf_cookie: 1n, fb_cookie: 2n, width: SIDE, height: SIDE };
        const fb_attach = { ...of, pixel_format: XRGB8888.fourcc };
        return { operation: XENDISPL_OP_FB_ATTACH, op: { fb_attach } };
      }
      case 'mode': {
        const set_config = { fb_cookie: 2n, x: 0, y: 0, width: SIDE, height: SIDE, bpp: 32 };
        return { operation: XENDISPL_OP_SET_CONFIG, op: { set_config } };
      }
      case 'flip':
        return { operation: XENDISPL_OP_PG_FLIP, op: { pg_flip: { fb_cookie: 2n } } };
      default:
        return { operation: XENDISPL_OP_DBUF_DESTROY, op: { dbuf_destroy: { dbuf_cookie: 1n } } };
    }
  }
}

interface GuestSideOptions {
  readonly lends: boolean;
  readonly runtime: ChoiceRuntime;
  readonly domain: ModelDomain;
  readonly ledger: Ledger;
}

/** One output for both guests: what it does, and when, is chosen. */
class ChosenOutput implements DisplayOutput {
  readonly #runtime: ChoiceRuntime;

  constructor(runtime: ChoiceRuntime) {
    this.#runtime = runtime;
  }

  async connect({ domid }: { domid: DomId }): Promise<OutputConnector> {
    const runtime = this.#runtime;
    let pending: (() => void) | undefined;
    const complete = () => {
      const onFlipped = pending;
      pending = undefined;
      onFlipped?.();
    };
    return {
      bytesCopied: 0,
      path: 'chosen',
      show: () => complete(),
      flip: (_picture: Picture, onFlipped) => {
        pending = onFlipped;
        runtime.add(`${OTHERS}flips ${domid}`, () => complete());
      },
      retire: () => runtime.step(`${OTHERS}lets go of ${domid}`),
      [Symbol.asyncDispose]: async () => {
        pending = undefined;
      },
    };
  }
}

export class LifeCycle {
  readonly #runtime = new ChoiceRuntime();
  readonly #domain = new ModelDomain(this.#runtime);
  readonly #ledger = new Ledger();
  readonly #guests: readonly GuestSide[];
  #backendRuns = true;

  /** A guest for each of `kinds`. */
  constructor(kinds: readonly BufferKind[], defect: (domain: ModelDomain) => void) {
    defect(this.#domain);
    const options = { runtime: this.#runtime, domain: this.#domain, ledger: this.#ledger };
    this.#guests = kinds.map((kind, index) => {
      return new GuestSide((index + 1) as DomId, { ...options, lends: kind === 'lent' });
    });
    const output = new ChosenOutput(this.#runtime);
    for (const guest of this.#guests) guest.connecting = this.#connect(guest, output);
  }

  /** Whether every guest is connected: the choices before that are the handshake's, not the buffers'. */
  get connected(): boolean {
    return this.#guests.every(({ domid }) => this.#domain.handlers.has(`${domid}/2`));
  }

  /** What could happen next, in an order that is always the same. */
  get choices(): string[] {
    const acts = this.#guests.flatMap((guest) => this.#actsOf(guest));
    return [...this.#runtime.offers, ...acts, ...(this.#backendRuns ? ['backend stops'] : [])];
  }

  choose(choice: string): void {
    const [who, act] = choice.split(': ');
    const guest = this.#guests.find(({ domid }) => who === `guest ${domid}`);
    if (choice === 'backend stops') this.#stopBackend();
    else if (guest) this.#act(guest, act!);
    else this.#runtime.choose(choice);
  }

  /** What the future depends on. */
  get state(): string {
    const guests = this.#guests.map((guest) => {
      const { asked, answers, alive, closed, account, mapped, pages } = guest;
      const buffers = account.buffers.map(({ state, holders }) => [
        state,
        holders.map((h) => h.who),
      ]);
      const mappings = pages.map((page) => page.mappings);
      const held = Object.values(account.held);
      const events = new Uint32Array(pages[1].bytes.buffer)[1];
      return [asked, answers, alive, closed, buffers, mappings, held, mapped.length, events];
    });
    return JSON.stringify([
      guests,
      this.#runtime.pending,
      this.#domain.lent.size,
      this.#backendRuns,
    ]);
  }

  /** Takes in what the backend answered, and looks at what must hold. @throws Broken */
  look(): void {
    hold(this.#domain.broken === undefined, this.#domain.broken ?? '');
    for (const guest of this.#guests) {
      if (guest.alive) this.#collect(guest);
      const { pages, account, closed, domid } = guest;
      const mapped = pages.reduce((sum, { mappings }) => sum + mappings, 0);
      hold(account.held.refs >= mapped, `guest ${domid}: ${mapped} pages mapped, fewer charged`);
      hold(
        closed !== 'closed' || pages[0].mappings + pages[1].mappings === 0,
        'closed with rings mapped',
      );
    }
  }

  /** At the end of every way nothing is left. @throws Broken */
  lookAtEnd(): void {
    for (const { closed, answers, asked, alive, account, domid } of this.#guests) {
      if (closed === 'no' && alive) hold(answers.length === asked, `guest ${domid} waits for ever`);
      if (closed === 'closed') hold(account.empty, `guest ${domid} is gone, and something is held`);
    }
  }

  async #connect(guest: GuestSide, output: DisplayOutput): Promise<void> {
    const { scope } = guest;
    try {
      await Connection.open({ runtime: this.#runtime, output, device: deviceOf(guest), scope });
    } catch {
      // The guest was over before it was connected, and took its grants with it.
      void this.#close(guest);
    }
  }

  #actsOf(guest: GuestSide): string[] {
    if (!guest.alive) return [];
    const { domid, asked, answers, lends, mapped } = guest;
    const acts = ['dies'];
    const bound = this.#domain.handlers.has(`${domid}/1`);
    if (bound && answers.length === asked && asked < SCRIPT.length) acts.push(SCRIPT[asked]!);
    if (lends && mapped.length === 0 && this.#domain.lent.size > 0) acts.push('maps');
    if (mapped.length > 0) acts.push('unmaps');
    return acts.map((act) => `guest ${domid}: ${act}`);
  }

  #act(guest: GuestSide, act: string): void {
    if (act === 'dies') this.#die(guest);
    else if (act === 'maps') this.#mapLent(guest);
    else if (act === 'unmaps') this.#unmapLent(guest);
    else {
      const bytes = new Uint8Array(displReq.size);
      displReq.write(new DataView(bytes.buffer), 0, { id: guest.asked, ...guest.request });
      guest.asked += 1;
      guest.ring.put(bytes);
      guest.ring.push();
      const handler = this.#domain.handlers.get(`${guest.domid}/1`);
      this.#runtime.add(`event of ${guest.domid}`, () => handler?.());
    }
  }

  #mapLent(guest: GuestSide): void {
    guest.mapped = [...this.#domain.lent.values()];
    for (const page of guest.mapped) page.mappings += 1;
  }

  #unmapLent(guest: GuestSide): void {
    for (const page of guest.mapped) page.mappings -= 1;
    guest.mapped = [];
  }

  /** Its domain is destroyed: it maps nothing any more, and the backend hears of it. */
  #die(guest: GuestSide): void {
    guest.alive = false;
    this.#unmapLent(guest);
    void this.#close(guest);
  }

  #stopBackend(): void {
    this.#backendRuns = false;
    for (const guest of this.#guests) void this.#close(guest);
  }

  async #close(guest: GuestSide): Promise<void> {
    if (guest.closed !== 'no') return;
    guest.closed = 'closing';
    // As a served device does: one thing after the other.
    await guest.connecting;
    await guest.context.scope.close().catch(() => {});
    guest.closed = 'closed';
  }

  #collect(guest: GuestSide): void {
    const { domid, lends, pages } = guest;
    for (let taken = guest.ring.take(); taken; taken = guest.ring.take()) {
      const [id, status] = check(taken, (view) => [
        displResp.fields.id.get(view, 0),
        displResp.fields.status.get(view, 0),
      ]);
      hold(id === guest.answers.length, `guest ${domid}: request ${id} is answered out of turn`);
      guest.answers.push(status!);
      if (SCRIPT[id!] !== 'destroy' || status !== 0) continue;
      const still = lends ? this.#domain.lent.size : pages[3].mappings;
      hold(still === 0, `guest ${domid}: destroyed, and ${still} pages are still in use`);
      hold(guest.mapped.length === 0, `guest ${domid}: destroyed while it maps the memory`);
    }
  }
}

function deviceOf({ context, scope, lends }: GuestSide): BackendDevice {
  const nodes = { ...NODES, 'be-alloc': lends ? '1' : '0' };
  const node = (key: string): string | undefined => nodes[key as keyof typeof nodes];
  return {
    guest: context,
    type: 'vdispl',
    devid: 0,
    backendPath: '',
    frontendPath: '',
    log: context.log,
    scope,
    readBackend: async () => undefined,
    writeBackend: async () => {},
    readFrontend: async (key) => {
      const value = node(key);
      return value === undefined ? undefined : distrust(value);
    },
    confirmFrontend: async () => {},
    fail: (error) => {
      throw new Broken(`the connection failed: ${error.message}`);
    },
  };
}
