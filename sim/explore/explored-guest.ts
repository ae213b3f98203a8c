// A guest of the explored world: one display with one connector and one buffer, whose life it goes through, a
// request at a time, each of them a move. It may be killed at any moment.
//
// What it checks by itself, at each answer and event: every request is answered once, with what is right at that
// point; the ids of flip events are in sequence, one for each flip; and once DBUF_DESTROY was answered with
// success, its pages are not mapped any more (law 4).

import assert from 'node:assert/strict';
import {
  displEvt,
  displReq,
  displResp,
  displSring,
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_SET_CONFIG,
} from '../../src/abi/displif.ts';
import { XEN_ERRNO } from '../../src/abi/errno.ts';
import { GTF_reading, GTF_writing } from '../../src/abi/grant-table.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { DISPLAY_EVENTS } from '../../src/display/flip-events.ts';
import type { RequestBody } from '../../src/display/frontend-connector.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import { WORDS_PER_GRANT, wordsOf } from '../../src/hypervisor/grant-table.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { HypercallPort } from '../../src/hypervisor/hypercalls.ts';
import type { EventChannel, SharedPages } from '../../src/xen/domain.ts';
import { EventConsumer } from '../../src/xen/event-page.ts';
import type { DomId, Gref } from '../../src/xen/ids.ts';
import { writePageDirectory } from '../../src/xen/page-directory.ts';
import { FrontRing, initRing } from '../../src/xen/ring.ts';
import { check } from '../../src/xen/untrusted.ts';
import type { Move } from './chosen-runtime.ts';

/** One page of pixels. */
export const WIDTH = 32;
export const HEIGHT = 32;
const BYTES = WIDTH * HEIGHT * 4;

const BUFFER = 1n;
const FRAMEBUFFER = 2n;

/** What a guest does in its life, one after the other. */
export type Act = 'create' | 'attach' | 'show' | 'flip' | 'destroy';

const { XEN_EBUSY, XEN_EEXIST, XEN_ENOENT, XEN_ETIMEDOUT } = XEN_ERRNO;

/** What may be answered while the buffer is there, and while it is not, or still in quarantine. */
const ANSWERS: Readonly<Record<Act, { live: readonly number[]; gone: readonly number[] }>> = {
  create: { live: [-XEN_EEXIST], gone: [0, -XEN_EEXIST] },
  attach: { live: [0], gone: [-XEN_ENOENT, -XEN_EBUSY] },
  show: { live: [0], gone: [-XEN_ENOENT] },
  flip: { live: [0, -XEN_EBUSY], gone: [-XEN_ENOENT, -XEN_EBUSY] },
  destroy: { live: [0, -XEN_ETIMEDOUT], gone: [-XEN_ENOENT, -XEN_EBUSY] },
};

export interface GuestOptions {
  readonly name: string;
  readonly domain: GuestDomain;
  readonly port: HypercallPort;
  readonly backend: DomId;
  readonly life: readonly Act[];
}

export class ExploredGuest {
  readonly name: string;
  readonly domain: GuestDomain;
  /** What it published, as a display's frontend nodes. */
  readonly published: ReadonlyMap<string, string>;
  /** What was not as it has to be. */
  readonly complaints: string[] = [];
  alive = true;
  readonly #life: readonly Act[];
  readonly #port: HypercallPort;
  readonly #rings: SharedPages;
  readonly #pixels: Gref;
  readonly #directory: Gref;
  readonly #control: EventChannel;
  readonly #ring: FrontRing;
  readonly #eventRing: EventConsumer;
  readonly #statuses: number[] = [];
  #acted = 0;
  #live = false;
  #accepted = 0;
  #flipped = 0;

  private constructor(options: GuestOptions, parts: GuestParts) {
    this.name = options.name;
    this.domain = options.domain;
    this.#life = options.life;
    this.#port = options.port;
    this.#rings = parts.rings;
    this.#pixels = parts.pixels;
    this.#directory = parts.directory;
    this.#control = parts.control;
    this.#ring = new FrontRing(this.#controlPage, displSring);
    this.#eventRing = new EventConsumer(this.#eventPage, DISPLAY_EVENTS);
    this.published = new Map([
      ['0/resolution', `${WIDTH}x${HEIGHT}`],
      ['0/req-ring-ref', String(parts.rings.refs[0])],
      ['0/req-event-channel', String(parts.control.port)],
      ['0/evt-ring-ref', String(parts.rings.refs[1])],
      ['0/evt-event-channel', String(parts.events.port)],
    ]);
  }

  /** Makes its pages and ports, which the backend may then map and bind. @throws SysError */
  static async start(options: GuestOptions): Promise<ExploredGuest> {
    const { domain, backend } = options;
    const { grants, events } = domain;
    let guest: ExploredGuest | undefined;
    const rings = await grants.share({ domid: backend, pages: 2, writable: true });
    initRing(rings.bytes.subarray(0, PAGE_SIZE), displSring);
    const pixels = await grants.share({ domid: backend, pages: 1, writable: false });
    const { refs } = pixels;
    const directory = await writePageDirectory(grants, { domid: backend, refs });
    const channel = (handler: () => void) => events.allocUnbound({ remote: backend, handler });
    guest = new ExploredGuest(options, {
      rings,
      pixels: refs[0]!,
      directory: directory.refs[0]!,
      control: await channel(() => guest?.collect()),
      events: await channel(() => guest?.collectEvents()),
    });
    return guest;
  }

  /** Its next request, once the one before is answered. */
  moves(): Move[] {
    const act = this.#life[this.#acted];
    if (!this.alive || act === undefined || this.#ring.unanswered > 0) return [];
    return [{ name: `${this.name} asks: ${act}`, run: () => this.#ask(act) }];
  }

  /** Whether all that it asked for is answered, and each flip that was accepted has its event. */
  get content(): boolean {
    return this.#ring.unanswered === 0 && this.#flipped === this.#accepted;
  }

  /** What of it makes a difference to what can happen. */
  describe(): string {
    const { name, alive } = this;
    const words = [...new Uint32Array(this.#controlPage.slice(0, 16).buffer)];
    const heads = [...new Uint32Array(this.#eventPage.slice(0, 8).buffer)];
    const pinned = this.#pinned(this.#pixels) ? 'mapped' : 'free';
    return `${name}: alive ${alive}, acts ${this.#acted}, answers ${this.#statuses}, ring ${words}, events ${heads}, flips ${this.#accepted}/${this.#flipped}, pixels ${pinned}`;
  }

  collect(): void {
    for (let taken = this.#ring.take(); taken !== undefined; taken = this.#ring.take()) {
      const { id, operation, status } = check(taken, (view) => ({
        id: displResp.fields.id.get(view, 0),
        operation: displResp.fields.operation.get(view, 0),
        status: displResp.fields.status.get(view, 0),
      }));
      this.#answered({ id, operation, status });
    }
    this.#ring.finalCheck();
  }

  collectEvents(): void {
    for (let taken = this.#eventRing.next(); taken !== undefined; taken = this.#eventRing.next()) {
      const id = check(taken, (view) => displEvt.fields.id.get(view, 0));
      if (id !== this.#flipped) this.#complain(`event ${id} where ${this.#flipped} is next`);
      this.#flipped += 1;
      if (this.#flipped > this.#accepted) this.#complain('an event without a flip');
    }
  }

  #ask(act: Act): void {
    const bytes = new Uint8Array(displReq.size);
    const id = this.#acted++;
    displReq.write(new DataView(bytes.buffer), 0, { id, ...this.#body(act) });
    assert(this.#ring.put(bytes), 'one request at a time fits');
    // A flip's event may be seen before its answer.
    if (act === 'flip') this.#accepted += 1;
    if (this.#ring.push()) this.#control.notify();
  }

  #answered({ id, operation, status }: { id: number; operation: number; status: number }): void {
    const act = this.#life[id];
    if (id !== this.#statuses.length || act === undefined) {
      this.#complain(`an answer to ${id} after ${this.#statuses.length} answers`);
      return;
    }
    this.#statuses.push(status);
    const { operation: asked } = this.#body(act);
    if (operation !== asked) this.#complain(`operation ${operation} in the answer to ${act}`);
    const expected = ANSWERS[act][this.#live ? 'live' : 'gone'];
    if (!expected.includes(status)) {
      this.#complain(`${act} is answered ${status}, live ${this.#live}`);
    }
    if (act === 'create' && status === 0) this.#live = true;
    if (act === 'flip' && status !== 0) this.#accepted -= 1;
    if (act !== 'destroy') return;
    if (status === 0 && this.#pinned(this.#pixels)) {
      this.#complain('its buffer is destroyed with success, and still mapped');
    }
    if (status === 0 || status === -XEN_ETIMEDOUT) this.#live = false;
  }

  #body(act: Act): RequestBody {
    const geometry = { width: WIDTH, height: HEIGHT };
    switch (act) {
      case 'create': {
        const size = { bpp: 32, buffer_sz: BYTES, flags: 0, data_ofs: 0 };
        const named = { dbuf_cookie: BUFFER, gref_directory: this.#directory };
        const dbuf_create = { ...geometry, ...size, ...named };
        return { operation: XENDISPL_OP_DBUF_CREATE, op: { dbuf_create } };
      }
      case 'attach': {
        const cookies = { dbuf_cookie: BUFFER, fb_cookie: FRAMEBUFFER };
        const fb_attach = { ...geometry, ...cookies, pixel_format: XRGB8888.fourcc };
        return { operation: XENDISPL_OP_FB_ATTACH, op: { fb_attach } };
      }
      case 'show': {
        const set_config = { ...geometry, fb_cookie: FRAMEBUFFER, x: 0, y: 0, bpp: 32 };
        return { operation: XENDISPL_OP_SET_CONFIG, op: { set_config } };
      }
      case 'flip':
        return { operation: XENDISPL_OP_PG_FLIP, op: { pg_flip: { fb_cookie: FRAMEBUFFER } } };
      case 'destroy':
        return {
          operation: XENDISPL_OP_DBUF_DESTROY,
          op: { dbuf_destroy: { dbuf_cookie: BUFFER } },
        };
    }
  }

  #pinned(ref: Gref): boolean {
    if (!this.alive) return false;
    const flags = wordsOf(this.#port.grantTable)[ref * WORDS_PER_GRANT]!;
    return (flags & (GTF_reading | GTF_writing)) !== 0;
  }

  #complain(what: string): void {
    this.complaints.push(`${this.name}: ${what}`);
  }

  get #controlPage(): Uint8Array {
    return this.#rings.bytes.subarray(0, PAGE_SIZE);
  }

  get #eventPage(): Uint8Array {
    return this.#rings.bytes.subarray(PAGE_SIZE);
  }
}

interface GuestParts {
  readonly rings: SharedPages;
  readonly pixels: Gref;
  readonly directory: Gref;
  readonly control: EventChannel;
  readonly events: EventChannel;
}
