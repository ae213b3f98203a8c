// The frontend's end of one connector: requests into its control ring, answers and flip events out of it.
//
// As xen-drm-front: ids count up in 16 bits, an answer to nothing we wait for any more is dropped, a request
// without an answer fails after 3 s, and an event completes the flip that is outstanding. Unlike it, a
// backend that breaks the protocol (more answers than requests, an operation that was not asked for, event
// ids out of sequence) is found out. A flip costs no allocation.

import assert from 'node:assert/strict';
import {
  displEvt,
  displReq,
  displResp,
  displSring,
  XENDISPL_EVT_PG_FLIP,
  XENDISPL_OP_PG_FLIP,
} from '../abi/displif.ts';
import { XEN_ERRNO, xenErrnoName } from '../abi/errno.ts';
import { ProtocolViolation, SysError } from '../runtime/errors.ts';
import type { Runtime, Timer } from '../runtime/runtime.ts';
import { EventConsumer } from '../xen/event-page.ts';
import { FrontRing } from '../xen/ring.ts';
import { check } from '../xen/untrusted.ts';
import { type Cookie, setCookie } from './cookie.ts';
import { DISPLAY_EVENTS } from './flip-events.ts';

/** How long an answer, or the event of a flip, is waited for, in milliseconds; xen-drm-front's patience. */
export const REQUEST_TIMEOUT_MS = 3000;
const FLIP_COOKIE = displReq.fields.op.fields.pg_flip.fields.fb_cookie.offset;

/** A request's operation and payload; the id is ours to give. */
export type RequestBody = Omit<Parameters<typeof displReq.write>[2], 'id'>;
/** Learns that the flip is complete, or why it is not going to be. */
export type FlipListener = (error: Error | undefined) => void;

interface Waiting {
  readonly operation: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  readonly timer: Timer;
}

export interface FrontendConnectorParts {
  readonly runtime: Runtime;
  readonly index: number;
  /** What the toolstack configured, in pixels. */
  readonly width: number;
  readonly height: number;
  readonly controlPage: Uint8Array;
  readonly eventPage: Uint8Array;
  /** Signals the backend that there are requests. */
  readonly notify: () => void;
  /** The backend broke the protocol. */
  readonly fail: (error: Error) => void;
}

export class FrontendConnector {
  readonly index: number;
  readonly width: number;
  readonly height: number;
  readonly #parts: FrontendConnectorParts;
  readonly #ring: FrontRing;
  readonly #events: EventConsumer;
  readonly #waiting = new Map<number, Waiting>();
  readonly #request = new Uint8Array(displReq.size);
  readonly #requestView = new DataView(this.#request.buffer);
  readonly #flipRequest = new Uint8Array(displReq.size);
  readonly #flipView = new DataView(this.#flipRequest.buffer);
  #nextId = 0;
  #nextEventId = 0;
  /** Of the last flip, until it is answered. */
  #flipId: number | undefined;
  #flips = 0;
  #flipListener: FlipListener | undefined;
  #watchdog: Timer | undefined;
  #closed = false;

  constructor(parts: FrontendConnectorParts) {
    this.index = parts.index;
    this.width = parts.width;
    this.height = parts.height;
    this.#parts = parts;
    this.#ring = new FrontRing(parts.controlPage, displSring);
    this.#events = new EventConsumer(parts.eventPage, DISPLAY_EVENTS);
    displReq.fields.operation.set(this.#flipView, 0, XENDISPL_OP_PG_FLIP);
  }

  /**
   * Sends a request and waits for its answer.
   * @throws SysError with the backend's errno, ETIMEDOUT without an answer, EBUSY when the ring is full, or
   *   ENOTCONN when the connection ends first
   */
  request(body: RequestBody): Promise<void> {
    const id = this.#takeId();
    displReq.write(this.#requestView, 0, { id, ...body });
    const { operation } = body;
    return new Promise((resolve, reject) => {
      this.#send(this.#request, operation);
      const timer = this.#parts.runtime.after(REQUEST_TIMEOUT_MS, () => {
        this.#waiting.delete(id);
        reject(failure(operation, XEN_ERRNO.XEN_ETIMEDOUT));
      });
      this.#waiting.set(id, { operation, resolve, reject, timer });
    });
  }

  /**
   * Flips to a framebuffer and calls `onFlipped` once: when the output has stopped reading the one before,
   * or when that is not going to happen. One flip at a time. @throws SysError (EBUSY, ENOTCONN)
   */
  flip(framebuffer: Cookie, onFlipped: FlipListener): void {
    assert(this.#flipListener === undefined, 'a flip while another one is outstanding');
    const id = this.#takeId();
    displReq.fields.id.set(this.#flipView, 0, id);
    setCookie(this.#flipView, FLIP_COOKIE, framebuffer);
    this.#send(this.#flipRequest, XENDISPL_OP_PG_FLIP);
    this.#flipId = id;
    this.#flips += 1;
    this.#flipListener = onFlipped;
    this.#watchdog ??= this.#watch();
  }

  /** Handler of the control ring's event channel. */
  readonly onResponses = (): void => {
    if (this.#closed) return;
    try {
      do {
        for (;;) {
          const response = this.#ring.take();
          if (response === undefined) break;
          check(response, this.#onResponse);
        }
      } while (this.#ring.finalCheck());
    } catch (error) {
      this.#fail(error);
    }
  };

  /** Handler of the event page's event channel. */
  readonly onEvents = (): void => {
    if (this.#closed) return;
    try {
      for (let left = this.#events.slots; left > 0; left--) {
        const event = this.#events.next();
        if (event === undefined) break;
        check(event, this.#onEvent);
      }
      this.#events.confirm();
    } catch (error) {
      this.#fail(error);
    }
  };

  /** The connection is over: everything that waits fails. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watchdog?.cancel();
    for (const { operation, reject, timer } of this.#waiting.values()) {
      timer.cancel();
      reject(failure(operation, XEN_ERRNO.XEN_ENOTCONN));
    }
    this.#waiting.clear();
    this.#endFlip(failure(XENDISPL_OP_PG_FLIP, XEN_ERRNO.XEN_ENOTCONN));
  }

  readonly #onResponse = (view: DataView): void => {
    const { fields } = displResp;
    const id = fields.id.get(view, 0);
    const operation = fields.operation.get(view, 0);
    const status = fields.status.get(view, 0);
    if (status > 0) throw broken('response-status', `status ${status}`);
    const waiting = this.#waiting.get(id);
    if (waiting === undefined && id !== this.#flipId) return;
    const asked = waiting?.operation ?? XENDISPL_OP_PG_FLIP;
    if (operation !== asked) throw broken('response-operation', `${operation} instead of ${asked}`);
    const error = status === 0 ? undefined : failure(operation, -status);
    if (waiting !== undefined) this.#settle(id, waiting, error);
    else this.#onFlipAnswered(error);
  };

  #settle(id: number, { resolve, reject, timer }: Waiting, error: SysError | undefined): void {
    this.#waiting.delete(id);
    timer.cancel();
    if (error) reject(error);
    else resolve();
  }

  #onFlipAnswered(error: SysError | undefined): void {
    this.#flipId = undefined;
    if (error) this.#endFlip(error);
  }

  readonly #onEvent = (view: DataView): void => {
    const { fields } = displEvt;
    const id = fields.id.get(view, 0);
    const type = fields.type.get(view, 0);
    if (type !== XENDISPL_EVT_PG_FLIP) throw broken('event-type', `event of type ${type}`);
    if (id !== this.#nextEventId) throw broken('event-id', `${id} instead of ${this.#nextEventId}`);
    this.#nextEventId = (id + 1) & 0xffff;
    this.#endFlip(undefined);
  };

  #takeId(): number {
    const id = this.#nextId;
    this.#nextId = (id + 1) & 0xffff;
    return id;
  }

  #send(request: Uint8Array, operation: number): void {
    if (this.#closed) throw failure(operation, XEN_ERRNO.XEN_ENOTCONN);
    if (!this.#ring.put(request)) throw failure(operation, XEN_ERRNO.XEN_EBUSY);
    if (this.#ring.push()) this.#parts.notify();
  }

  #endFlip(error: Error | undefined): void {
    const listener = this.#flipListener;
    this.#flipListener = undefined;
    listener?.(error);
  }

  /** One timer for all flips: when it fires, the flip that was outstanding must have been completed. */
  #watch(): Timer {
    const flip = this.#flips;
    return this.#parts.runtime.after(REQUEST_TIMEOUT_MS, () => {
      this.#watchdog = undefined;
      if (this.#flipListener === undefined) return;
      if (this.#flips === flip)
        this.#endFlip(failure(XENDISPL_OP_PG_FLIP, XEN_ERRNO.XEN_ETIMEDOUT));
      else this.#watchdog = this.#watch();
    });
  }

  #fail(error: unknown): void {
    this.close();
    this.#parts.fail(error instanceof Error ? error : new Error(String(error)));
  }
}

function broken(reason: string, detail: string): ProtocolViolation {
  return new ProtocolViolation(reason, 'XEN_EIO', `the backend sent ${detail}`);
}

function failure(operation: number, errno: number): SysError {
  return new SysError({
    call: `displif operation 0x${operation.toString(16)}`,
    errnoName: xenErrnoName(errno).replace('XEN_', ''),
    context: 'asking the display backend',
  });
}
