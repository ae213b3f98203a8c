// What must hold of the rings of a display, seen from the pages of a frontend that keeps the rules: every
// request is answered once and in its turn, every flip that was accepted is completed by one event, and the
// events' ids have no gap.
//
// The pages are looked at after every step, before anybody else can have run: so nothing is missed and no
// slot is overwritten meanwhile.

import {
  displEvt,
  displReq,
  displResp,
  displSring,
  XENDISPL_IN_RING_LEN,
  XENDISPL_IN_RING_OFFS,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_SET_CONFIG,
} from '../src/abi/displif.ts';
import { PAGE_SIZE } from '../src/abi/page.ts';
import { ringSlots } from '../src/abi/ring.ts';
import type { DomId } from '../src/xen/ids.ts';
import type { Findings } from './findings.ts';
import type { Trace } from './trace.ts';

const SLOTS = ringSlots(displSring, PAGE_SIZE);
const RING_OFFSET = displSring.fields.ring.offset;
const SLOT_BYTES = displSring.fields.ring.size;
/** Words of the control page, and of the event page. */
const REQ_PROD = 0;
const RSP_PROD = 2;
const EVENT_PROD = 1;
const ID_MASK = 0xffff;

export interface RingOracleOptions {
  readonly domid: DomId;
  readonly pages: Uint8Array;
  readonly trace: Trace;
  readonly findings: Findings;
}

interface Outstanding {
  readonly id: number;
  readonly operation: number;
}

/** The two pages of one connector. */
export class RingOracle {
  /** Whose rings these are. */
  readonly domid: DomId;
  readonly #trace: Trace;
  readonly #findings: Findings;
  readonly #words: Int32Array;
  readonly #eventWords: Int32Array;
  readonly #control: DataView;
  readonly #events: DataView;
  readonly #outstanding: Outstanding[] = [];
  #requests = 0;
  #responses = 0;
  #eventsSeen = 0;
  #flipsAccepted = 0;

  /** `pages` are the control page and the event page, both new. */
  constructor({ domid, pages, trace, findings }: RingOracleOptions) {
    const { buffer, byteOffset } = pages;
    this.domid = domid;
    this.#trace = trace;
    this.#findings = findings;
    this.#words = new Int32Array(buffer, byteOffset, 4);
    this.#control = new DataView(buffer, byteOffset, PAGE_SIZE);
    this.#eventWords = new Int32Array(buffer, byteOffset + PAGE_SIZE, 2);
    this.#events = new DataView(buffer, byteOffset + PAGE_SIZE, PAGE_SIZE);
  }

  /** Takes in what is new. */
  look(): void {
    if (this.#words[REQ_PROD] !== this.#requests) this.#takeRequests();
    if (this.#words[RSP_PROD] !== this.#responses) this.#takeResponses();
    if (this.#eventWords[EVENT_PROD] !== this.#eventsSeen) this.#takeEvents();
  }

  #takeRequests(): void {
    const until = this.#words[REQ_PROD]!;
    for (; this.#requests !== until; this.#requests = (this.#requests + 1) | 0) {
      const at = slot(this.#requests);
      const id = displReq.fields.id.get(this.#control, at);
      const operation = displReq.fields.operation.get(this.#control, at);
      this.#outstanding.push({ id, operation });
    }
  }

  #takeResponses(): void {
    const until = this.#words[RSP_PROD]!;
    const answered = (until - this.#responses) >>> 0;
    this.#findings.hold(answered <= this.#outstanding.length, 'answered-once', () =>
      this.#says(
        `answers to nothing ${[...this.#words]} ${[...this.#eventWords]} ${this.#requests} ${this.#responses} ${JSON.stringify(this.#outstanding)}`,
      ),
    );
    for (; this.#responses !== until; this.#responses = (this.#responses + 1) | 0) {
      const at = slot(this.#responses);
      const { id, operation } = this.#outstanding.shift()!;
      const same =
        displResp.fields.id.get(this.#control, at) === id &&
        displResp.fields.operation.get(this.#control, at) === operation;
      this.#findings.hold(same, 'answered-once', () =>
        this.#says(`request ${id} is answered as another`),
      );
      const status = displResp.fields.status.get(this.#control, at);
      this.#trace.note('answer', this.domid, operation, status);
      if (status === 0) this.#accepted(operation);
    }
  }

  #accepted(operation: number): void {
    if (operation === XENDISPL_OP_PG_FLIP) this.#flipsAccepted += 1;
    if (operation !== XENDISPL_OP_SET_CONFIG) return;
    // A mode cuts the outstanding flip short, and says so before it is answered.
    const events = this.#eventWords[EVENT_PROD]! >>> 0;
    this.#findings.hold(events === this.#flipsAccepted >>> 0, 'flip-completed-once', () =>
      this.#says(`${this.#flipsAccepted} flips and ${events} events at a mode switch`),
    );
  }

  #takeEvents(): void {
    const until = this.#eventWords[EVENT_PROD]!;
    for (; this.#eventsSeen !== until; this.#eventsSeen = (this.#eventsSeen + 1) | 0) {
      const at =
        XENDISPL_IN_RING_OFFS + ((this.#eventsSeen >>> 0) % XENDISPL_IN_RING_LEN) * displEvt.size;
      const id = displEvt.fields.id.get(this.#events, at);
      const expected = this.#eventsSeen & ID_MASK;
      this.#findings.hold(id === expected, 'event-ids', () =>
        this.#says(`event ${id} in place of ${expected}`),
      );
    }
    this.#trace.note('event', this.domid, until);
    const missing = this.#flipsAccepted - this.#eventsSeen;
    this.#findings.hold(missing === 0 || missing === 1, 'flip-completed-once', () =>
      this.#says(`${this.#flipsAccepted} flips and ${this.#eventsSeen} events`),
    );
  }

  #says(what: string): string {
    return `domain ${this.domid}: ${what}`;
  }
}

function slot(index: number): number {
  return RING_OFFSET + (index & (SLOTS - 1)) * SLOT_BYTES;
}
