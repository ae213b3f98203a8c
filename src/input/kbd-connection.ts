// The shared page of one connection, the backend's end: sends what waits in the queue as far as the in ring
// has room, and goes on when the frontend notifies that it has consumed (xen/io/kbdif.h).
//
// Invariants: what is sent in one turn costs one notification; work per wake-up is bounded by the rings and
// wake-ups by a rate; a frontend that breaks the ring is failed, and nothing is sent to it afterwards.

import { XENKBD_IN_EVENT_SIZE } from '../abi/kbdif.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { EventConsumer, EventProducer } from '../xen/event-page.ts';
import type { GuestContext } from '../xen/xenbus/driver.ts';
import { EventQueue } from './event-queue.ts';
import {
  BTN_LEFT,
  BTN_TASK,
  encodeKbdEvent,
  IN_RING,
  isPointerButton,
  type KbdEvent,
  KEY_MAX,
  OUT_RING,
} from './kbd-events.ts';
import type { InputOffer } from './keyboard-input.ts';

/** Ranges of codes that Linux frontends take: keys, a pointer's buttons, keys again. */
const ACCEPTED_CODES: readonly (readonly [first: number, last: number])[] = [
  [1, 239],
  [BTN_LEFT, BTN_TASK],
  [0x160, KEY_MAX - 1],
];

export interface KbdConnectionOptions {
  readonly runtime: Runtime;
  /** The frontend's page. */
  readonly page: Uint8Array;
  readonly signal: AbortSignal;
  /** Whose rate wake-ups count against. */
  readonly guest: Pick<GuestContext, 'spend' | 'rest'>;
  readonly notify: () => void;
  /** The frontend broke the protocol. */
  readonly fail: (error: Error) => void;
  /** It sent an event, of which the protocol defines none. */
  readonly onUnknownEvent: () => void;
  /** What the device has. */
  readonly offer: Pick<InputOffer, 'keyboard' | 'pointer'>;
  /** Contacts of the frontend's touch screen; 0 without one. */
  readonly contacts: number;
}

export class KbdConnection {
  readonly queue = new EventQueue();
  readonly #options: KbdConnectionOptions;
  readonly #in: EventProducer;
  readonly #out: EventConsumer;
  readonly #slot = new Uint8Array(XENKBD_IN_EVENT_SIZE);
  readonly #slotView = new DataView(this.#slot.buffer);
  /** Releases of what an earlier backend may have left down, the next one last; not sent yet. */
  readonly #leftovers: KbdEvent[];
  #flushing = false;
  #over = false;

  constructor(options: KbdConnectionOptions) {
    const { page } = options;
    this.#options = options;
    const used = new Int32Array(page.buffer, page.byteOffset + IN_RING.prodOffset, 1)[0] !== 0;
    this.#leftovers = used ? everyRelease(options) : [];
    this.#in = new EventProducer(page, IN_RING, { confirmation: 'required' });
    this.#out = new EventConsumer(page, OUT_RING);
  }

  /** Puts events into the queue, to be sent at the end of this turn. @returns whether they were taken */
  enqueue(put: (queue: EventQueue) => boolean): boolean {
    let taken = false;
    this.#guarded(() => {
      taken = put(this.queue);
    });
    if (taken) this.flushSoon();
    return taken;
  }

  /** Sends at the end of this turn what the queue has by then. */
  flushSoon(): void {
    if (this.#flushing || this.#over) return;
    this.#flushing = true;
    this.#options.runtime.defer(() => {
      this.#flushing = false;
      this.flush();
    });
  }

  /** Sends what there is room for, now. */
  flush(): void {
    if (this.#over) return;
    this.#guarded(() => {
      let sent = 0;
      while (this.#putNext()) sent += 1;
      if (sent === 0) return;
      this.#in.publish();
      this.#options.notify();
    });
  }

  /** The frontend has notified. A promise slows down one that does so without end (XSA-332). */
  readonly onNotification = (): void | Promise<void> => {
    if (this.#over) return;
    this.#guarded(() => this.#takeOutEvents());
    this.flush();
    const { guest, signal } = this.#options;
    guest.spend('wakeupsPerSecond', 1);
    return guest.rest('wakeupsPerSecond', signal);
  };

  /** The page must not be touched any more. */
  end(): void {
    this.#over = true;
  }

  /** Puts the next event into the ring; false when there is none, or no room for it. */
  #putNext(): boolean {
    const leftover = this.#leftovers.at(-1);
    const event = leftover ?? this.queue.head;
    if (!event) return false;
    encodeKbdEvent(this.#slotView, event);
    if (!this.#in.put(this.#slot)) return false;
    if (leftover) this.#leftovers.pop();
    else this.queue.shift();
    return true;
  }

  #takeOutEvents(): void {
    let taken = 0;
    while (taken < this.#out.slots && this.#out.next()) taken += 1;
    if (taken === 0) return;
    this.#out.confirm();
    for (let index = 0; index < taken; index++) this.#options.onUnknownEvent();
  }

  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#over = true;
      this.#options.fail(error instanceof Error ? error : new Error(String(error)));
    }
  }
}

/**
 * Releases of everything that can be down. A backend that died told nobody what was, and a release of
 * what is not down does nothing; but what the device has no place for, a Linux frontend cannot bear.
 */
function everyRelease({
  offer,
  contacts,
}: Pick<KbdConnectionOptions, 'offer' | 'contacts'>): KbdEvent[] {
  const has = ([first]: readonly [number, number]) =>
    isPointerButton(first) ? offer.pointer : offer.keyboard;
  const keys = ACCEPTED_CODES.filter(has).flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, index): KbdEvent => {
      return { kind: 'key', code: first + index, pressed: false };
    }),
  );
  const touches = Array.from({ length: contacts }, (_, contact): KbdEvent[] => [
    { kind: 'sync', contact },
    { kind: 'up', contact },
  ]);
  return [...keys, ...touches.flat()];
}
