// The events of one connector: "page flip complete", into its event page and over its event channel.
//
// Invariant (trap 6): ids are consecutive 16-bit numbers from 0 for each connection, taken only by events
// that were really put into the page; xen-drm-front would never again accept one after a gap.

import assert from 'node:assert/strict';
import {
  displEventPage,
  displEvt,
  XENDISPL_EVT_PG_FLIP,
  XENDISPL_IN_RING_LEN,
  XENDISPL_IN_RING_OFFS,
} from '../abi/displif.ts';
import { EventProducer, type EventRingGeometry } from '../xen/event-page.ts';
import { type Cookie, setCookie } from './cookie.ts';

export const DISPLAY_EVENTS: EventRingGeometry = {
  consOffset: displEventPage.fields.in_cons.offset,
  prodOffset: displEventPage.fields.in_prod.offset,
  slotsOffset: XENDISPL_IN_RING_OFFS,
  slotBytes: displEvt.size,
  slots: XENDISPL_IN_RING_LEN,
};

const COOKIE = displEvt.fields.op.fields.pg_flip.fields.fb_cookie.offset;

export class FlipEvents {
  readonly #ring: EventProducer;
  readonly #notify: () => void;
  readonly #event = new Uint8Array(displEvt.size);
  readonly #view = new DataView(this.#event.buffer);
  #id = 0;

  constructor(page: Uint8Array, notify: () => void) {
    this.#ring = new EventProducer(page, DISPLAY_EVENTS, { confirmation: 'optional' });
    this.#notify = notify;
    displEvt.fields.type.set(this.#view, 0, XENDISPL_EVT_PG_FLIP);
  }

  /** Tells the frontend that the flip to this framebuffer is complete. */
  send(framebuffer: Cookie): void {
    displEvt.fields.id.set(this.#view, 0, this.#id);
    setCookie(this.#view, COOKIE, framebuffer);
    assert(this.#ring.put(this.#event), 'no room where the newest event takes the oldest slot');
    this.#id = (this.#id + 1) & 0xffff;
    this.#ring.publish();
    this.#notify();
  }
}
