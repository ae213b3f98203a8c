// A guest of the explored world: one display with one connector, and buffers whose life it goes through, a request at a
// time, each of them a move. It may be killed at any moment.
//
// What it checks by itself, at each answer and event: every request is answered once, with what is right at that
// point; the ids of flip events are in sequence, one for each flip; and once DBUF_DESTROY was answered with
// success, its own pages are not mapped any more, and it maps nothing of the backend's (law 4).

import assert from 'node:assert/strict';
import { displEvt, displResp, displSring } from '../../src/abi/displif.ts';
import { GTF_reading, GTF_writing } from '../../src/abi/grant-table.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { DISPLAY_EVENTS } from '../../src/display/flip-events.ts';
import { WORDS_PER_GRANT, wordsOf } from '../../src/hypervisor/grant-table.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { HypercallPort } from '../../src/hypervisor/hypercalls.ts';
import type { EventChannel, SharedPages } from '../../src/xen/domain.ts';
import { EventConsumer } from '../../src/xen/event-page.ts';
import type { DomId, Gref } from '../../src/xen/ids.ts';
import { writePageDirectory } from '../../src/xen/page-directory.ts';
import { FrontRing, initRing } from '../../src/xen/ring.ts';
import { check } from '../../src/xen/untrusted.ts';
import {
  type Act,
  type BufferName,
  bufferOf,
  encode,
  HEIGHT,
  isBorrow,
  isCreate,
  isDestroy,
  KnownBuffers,
  operationOf,
  WIDTH,
} from './acts.ts';
import { BorrowedMemory } from './borrowed-memory.ts';
import type { Move } from './chosen-runtime.ts';

export interface GuestOptions {
  readonly name: string;
  readonly domain: GuestDomain;
  readonly port: HypercallPort;
  readonly backend: DomId;
  readonly life: readonly Act[];
  /** What it draws, in every byte. */
  readonly colour: number;
  /** Buffers that its budget has room for. */
  readonly buffersMax: number;
}

export class ExploredGuest {
  readonly name: string;
  readonly domain: GuestDomain;
  readonly colour: number;
  /** What it published, as a display's frontend nodes. */
  readonly published: ReadonlyMap<string, string>;
  /** What was not as it has to be. */
  readonly complaints: string[] = [];
  alive = true;
  /** Whether there is a backend for its display. */
  served = true;
  readonly #life: readonly Act[];
  readonly #port: HypercallPort;
  readonly #rings: SharedPages;
  readonly #own: ReadonlyMap<BufferName, OwnPage>;
  readonly #borrowed: BorrowedMemory | undefined;
  readonly #known: KnownBuffers;
  readonly #control: EventChannel;
  readonly #ring: FrontRing;
  readonly #eventRing: EventConsumer;
  readonly #statuses: number[] = [];
  #acted = 0;
  #accepted = 0;
  #flipped = 0;

  private constructor(options: GuestOptions, parts: GuestParts) {
    this.name = options.name;
    this.domain = options.domain;
    this.colour = options.colour;
    this.#life = options.life;
    this.#port = options.port;
    this.#rings = parts.rings;
    this.#own = parts.own;
    this.#borrowed = parts.borrowed;
    this.#known = parts.known;
    this.#control = parts.control;
    this.#ring = new FrontRing(this.#controlPage, displSring);
    this.#eventRing = new EventConsumer(this.#eventPage, DISPLAY_EVENTS);
    this.published = new Map([
      ['be-alloc', '1'],
      ['0/resolution', `${WIDTH}x${HEIGHT}`],
      ['0/req-ring-ref', String(parts.rings.refs[0])],
      ['0/req-event-channel', String(parts.control.port)],
      ['0/evt-ring-ref', String(parts.rings.refs[1])],
      ['0/evt-event-channel', String(parts.events.port)],
    ]);
  }

  /** Makes its pages and ports, which the backend may then map and bind. @throws SysError */
  static async start(options: GuestOptions): Promise<ExploredGuest> {
    const { domain, backend, life, buffersMax } = options;
    const { grants, events } = domain;
    let guest: ExploredGuest | undefined;
    const rings = await grants.share({ domid: backend, pages: 2, writable: true });
    initRing(rings.bytes.subarray(0, PAGE_SIZE), displSring);
    const channel = (handler: () => void) => events.allocUnbound({ remote: backend, handler });
    const known = new KnownBuffers(buffersMax);
    guest = new ExploredGuest(options, {
      rings,
      own: await shareOwn(options),
      borrowed: life.some(isBorrow)
        ? await BorrowedMemory.start({
            ...options,
            isLive: (buffer) => guest!.#mayUse(buffer),
            complain: (what) => guest!.#complain(what),
          })
        : undefined,
      known,
      control: await channel(() => guest?.collect()),
      events: await channel(() => guest?.collectEvents()),
    });
    return guest;
  }

  /** Its next request, once the one before is answered; and what it does with what it borrowed. */
  moves(): Move[] {
    if (!this.alive) return [];
    const moves = this.#borrowed?.moves() ?? [];
    const act = this.#life[this.#acted];
    if (act === undefined || this.#ring.unanswered > 0) return moves;
    return [{ name: `${this.name} asks: ${act}`, run: () => this.#ask(act) }, ...moves];
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
    const pinned = [...this.#own.values()].map(({ pixels }) => this.#pinned(pixels));
    const borrowed = alive ? this.#borrowed?.describe() : 'nothing';
    return `${name}: alive ${alive}, acts ${this.#acted}, answers ${this.#statuses}, knows ${this.#known.describe()}, ring ${words}, events ${heads}, flips ${this.#accepted}/${this.#flipped}, own pages mapped ${pinned}, borrowed ${borrowed}`;
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
    const id = this.#acted++;
    assert(
      this.#ring.put(encode(act, { id, directory: this.#directoryFor(act) })),
      'one request at a time fits',
    );
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
    if (operation !== operationOf(act)) this.#complain(`operation ${operation} answers ${act}`);
    const before = this.#known.describe();
    if (!this.#known.answered(act, status)) {
      this.#complain(`${act} is answered ${status}, where it knew ${before}`);
    }
    if (act === 'flip' && status !== 0) this.#accepted -= 1;
    if (isDestroy(act) && status === 0) this.#checkReleased(bufferOf(act));
  }

  #checkReleased(buffer: BufferName): void {
    const own = this.#own.get(buffer);
    if (own !== undefined && this.#pinned(own.pixels)) {
      this.#complain('its buffer is destroyed with success, and still mapped');
    }
    if (this.#borrowed?.maps(buffer)) {
      this.#complain('what it borrowed is destroyed with success while it maps it');
    }
  }

  /** Where the pages of a new buffer are named; nowhere for other acts. */
  #directoryFor(act: Act): Gref {
    const buffer = bufferOf(act);
    if (isBorrow(act)) return this.#borrowed!.ask(buffer);
    return isCreate(act) ? this.#own.get(buffer)!.directory : (0 as Gref);
  }

  /** Whether the buffer is there for certain: live, not being destroyed, and with a backend behind it. */
  #mayUse(buffer: BufferName): boolean {
    return this.served && this.#ring.unanswered === 0 && this.#known.isLive(buffer);
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

/** A buffer of the guest's own. */
interface OwnPage {
  readonly pixels: Gref;
  readonly directory: Gref;
}

/** The pages that a life takes. @throws SysError */
async function shareOwn({
  domain: { grants },
  backend: domid,
  life,
  colour,
}: GuestOptions): Promise<ReadonlyMap<BufferName, OwnPage>> {
  const own = new Map<BufferName, OwnPage>();
  for (const buffer of new Set(life.filter(isCreate).map(bufferOf))) {
    const { refs, bytes } = await grants.share({ domid, pages: 1, writable: false });
    bytes.fill(colour);
    const directory = await writePageDirectory(grants, { domid, refs });
    own.set(buffer, { pixels: refs[0]!, directory: directory.refs[0]! });
  }
  return own;
}

interface GuestParts {
  readonly rings: SharedPages;
  readonly own: ReadonlyMap<BufferName, OwnPage>;
  readonly borrowed: BorrowedMemory | undefined;
  readonly known: KnownBuffers;
  readonly control: EventChannel;
  readonly events: EventChannel;
}
