// One connector of a display: the server of its control ring.
//
// Requests are answered in the order in which they came. Flips, and all else that needs no waiting, are
// done at once inside the event handler, without an allocation; a request that has to wait (mapping,
// unmapping) holds up this ring alone, whose port stays masked meanwhile. After SLICE requests the others
// get their turn, and a guest that is beyond its rates rests: its ring fills, and its port stays masked.
// Responses become visible before the events of the flips that they answer.
//
// A request that breaks a rule is answered with the rule's errno and counted. A ring that breaks its own
// rules, and a bug of ours, end the connection (`fail`).

import {
  displResp,
  displSring,
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_FB_DETACH,
  XENDISPL_OP_GET_EDID,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_SET_CONFIG,
} from '../abi/displif.ts';
import { XEN_ERRNO, type XenErrnoName } from '../abi/errno.ts';
import type { Work } from '../runtime/confinement.ts';
import { ProtocolViolation, SysError } from '../runtime/errors.ts';
import { type Runtime, turn } from '../runtime/runtime.ts';
import { BackRing } from '../xen/ring.ts';
import { check } from '../xen/untrusted.ts';
import type { GuestContext, RateKind } from '../xen/xenbus/driver.ts';
import type { Cookie } from './cookie.ts';
import { FlipEvents } from './flip-events.ts';
import { FlipMeter } from './flip-meter.ts';
import type { Framebuffer } from './framebuffers.ts';
import type { ConnectorInfo, OutputConnector } from './output.ts';
import type { Refusals } from './refusals.ts';
import {
  type AttachRequest,
  type ConfigRequest,
  type CreateRequest,
  type DetachRequest,
  type DisplayRequest,
  RequestParser,
  requestId,
  requestOperation,
} from './requests.ts';
import { Scanout } from './scanout.ts';

/** Requests of one ring that are served before anybody else gets a turn: a full ring. */
const SLICE = 32;
/** The connector whose ring carries the requests that concern no single connector (displif.h). */
const GENERIC_CONNECTOR = 0;

/** What the connectors of a display share. */
export interface Objects {
  create(request: CreateRequest): Promise<void>;
  destroy(buffer: Cookie): Promise<void>;
  attach(request: AttachRequest): void;
  detach(request: DetachRequest): void;
  /** @throws ProtocolViolation `unknown-framebuffer` (XEN_ENOENT) */
  framebuffer(cookie: Cookie): Framebuffer;
}

export interface ConnectorParts {
  readonly runtime: Runtime;
  readonly info: ConnectorInfo;
  /** Position at its device, from 0. */
  readonly ringIndex: number;
  readonly objects: Objects;
  readonly output: OutputConnector;
  /** Makes what the output calls ours to answer for: see `BackendDevice.confined`. */
  readonly confined: (work: Work<void>) => Work<void>;
  readonly refusals: Refusals;
  /** Whose rates this counts against. */
  readonly guest: Pick<GuestContext, 'spend' | 'rest'>;
  readonly controlPage: Uint8Array;
  readonly eventPage: Uint8Array;
  /** Signals the frontend: responses are there, events are there. */
  readonly notifyControl: () => void;
  readonly notifyEvents: () => void;
  /** Ends the connection. */
  readonly fail: (error: Error) => void;
}

export class Connector {
  readonly info: ConnectorInfo;
  readonly meter: FlipMeter;
  readonly #parts: ConnectorParts;
  readonly #ring: BackRing;
  readonly #events: FlipEvents;
  readonly #scanout: Scanout;
  readonly #parser = new RequestParser();
  readonly #response = new Uint8Array(displResp.size);
  readonly #responseView = new DataView(this.#response.buffer);
  readonly #stopping = new AbortController();
  #serving = false;
  /** Requests of this slice. */
  #served = 0;
  /** A complete flip whose event waits until the responses before it are visible. */
  #flipped: Framebuffer | undefined;
  /** While requests are served that had to wait. */
  #working: Promise<void> | undefined;

  constructor(parts: ConnectorParts) {
    const { runtime, info, controlPage, eventPage } = parts;
    this.info = info;
    this.meter = new FlipMeter(runtime);
    this.#parts = parts;
    this.#ring = new BackRing(controlPage, displSring);
    this.#events = new FlipEvents(eventPage, parts.notifyEvents);
    this.#scanout = new Scanout(parts, (target) => this.#onFlipped(target));
  }

  get output(): OutputConnector {
    return this.#parts.output;
  }

  get scanout(): Scanout {
    return this.#scanout;
  }

  /**
   * Serves what is in the ring: the handler of its event channel. When it returns a promise, the port is
   * to stay masked until that resolves.
   */
  readonly serve = (): void | Promise<void> => {
    if (this.#working !== undefined) return this.#working;
    this.#parts.guest.spend('wakeupsPerSecond', 1);
    const pending = both(this.#serveSlice(), this.#rest('wakeupsPerSecond'));
    if (pending === undefined) return;
    this.#working = this.#serveOn(pending);
    return this.#working;
  };

  /** Serves nothing and tells nothing any more. */
  stop(): void {
    this.#stopping.abort();
  }

  /** Resolves when no request is being served. */
  async idle(): Promise<void> {
    await this.#working;
  }

  async #serveOn(first: Promise<void>): Promise<void> {
    let pending: Promise<void> | undefined = first;
    try {
      while (pending !== undefined) {
        await pending;
        pending = this.#serveSlice();
      }
    } finally {
      this.#working = undefined;
    }
  }

  /** Serves up to SLICE requests. @returns what to wait for before going on, or undefined when done */
  #serveSlice(): Promise<void> | undefined {
    if (this.#stopping.signal.aborted) return undefined;
    this.#serving = true;
    this.#served = 0;
    try {
      const pending = this.#serveSome();
      this.#parts.guest.spend('requestsPerSecond', this.#served);
      return both(pending, this.#rest('requestsPerSecond'));
    } catch (error) {
      this.#breakOff(error);
      return undefined;
    } finally {
      this.#serving = false;
    }
  }

  #serveSome(): Promise<void> | undefined {
    for (let looks = 0; looks < SLICE; looks++) {
      const request = this.#ring.take();
      if (request === undefined) {
        this.#publish();
        if (!this.#ring.finalCheck()) return undefined;
        continue;
      }
      this.#served += 1;
      const slow = check(request, this.#execute);
      if (slow === undefined) continue;
      this.#publish();
      return slow;
    }
    this.#publish();
    return turn(this.#parts.runtime);
  }

  #rest(kind: RateKind): Promise<void> | undefined {
    return this.#parts.guest.rest(kind, this.#stopping.signal);
  }

  /** Executes and answers one request; a promise when that takes time. */
  readonly #execute = (view: DataView): Promise<void> | undefined => {
    const id = requestId(view);
    const operation = requestOperation(view);
    try {
      const slow = this.#perform(this.#parser.parse(view));
      if (slow !== undefined) return this.#answerLater(slow, id, operation);
      this.#answer(id, operation, 0);
    } catch (error) {
      this.#answer(id, operation, -this.#errnoOf(error));
    }
    return undefined;
  };

  async #answerLater(slow: Promise<void>, id: number, operation: number): Promise<void> {
    try {
      const status = await slow.then(
        () => 0,
        (error) => -this.#errnoOf(error),
      );
      if (this.#stopping.signal.aborted) return;
      this.#answer(id, operation, status);
      this.#publish();
    } catch (error) {
      this.#breakOff(error);
    }
    // Thousands of pages were mapped or unmapped: others first.
    await (this.#rest('mappedPagesPerSecond') ?? turn(this.#parts.runtime));
  }

  #perform(request: DisplayRequest): Promise<void> | undefined {
    const { objects, ringIndex } = this.#parts;
    switch (request.operation) {
      case XENDISPL_OP_PG_FLIP:
        this.#flip(request.framebuffer);
        return undefined;
      case XENDISPL_OP_SET_CONFIG:
        this.#configure(request);
        return undefined;
      case XENDISPL_OP_GET_EDID:
        throw new ProtocolViolation('edid-in-version-1', 'XEN_EOPNOTSUPP', 'GET_EDID is version 2');
    }
    if (ringIndex !== GENERIC_CONNECTOR) {
      const detail = `operation 0x${request.operation.toString(16)} on ring ${ringIndex}`;
      throw new ProtocolViolation('wrong-connector', 'XEN_EINVAL', detail);
    }
    switch (request.operation) {
      case XENDISPL_OP_DBUF_CREATE:
        return objects.create(request);
      case XENDISPL_OP_DBUF_DESTROY:
        return objects.destroy(request.buffer);
      case XENDISPL_OP_FB_ATTACH:
        objects.attach(request);
        return undefined;
      case XENDISPL_OP_FB_DETACH:
        objects.detach(request);
        return undefined;
    }
  }

  #flip(cookie: Cookie): void {
    const framebuffer = this.#parts.objects.framebuffer(cookie);
    if (this.#flipped !== undefined || this.#scanout.flipping) {
      throw new ProtocolViolation(
        'flip-outstanding',
        'XEN_EBUSY',
        'the last flip has no event yet',
      );
    }
    this.meter.arrived();
    this.#scanout.flip(framebuffer);
  }

  #configure({ mode }: ConfigRequest): void {
    if (mode === undefined) this.#scanout.blank();
    else this.#scanout.show(this.#parts.objects.framebuffer(mode.framebuffer), mode.viewport);
    // The event of a flip that this cut short comes before the answer, so that it meets its own flip.
    this.#sendEvent();
  }

  #onFlipped(framebuffer: Framebuffer): void {
    this.#flipped = framebuffer;
    if (!this.#serving) this.#sendEvent();
  }

  #sendEvent(): void {
    const framebuffer = this.#flipped;
    if (framebuffer === undefined || this.#stopping.signal.aborted) return;
    this.#flipped = undefined;
    this.#events.send(framebuffer.cookie);
    this.meter.completed();
  }

  #answer(id: number, operation: number, status: number): void {
    const { fields } = displResp;
    fields.id.set(this.#responseView, 0, id);
    fields.operation.set(this.#responseView, 0, operation);
    fields.status.set(this.#responseView, 0, status);
    this.#ring.put(this.#response);
  }

  #publish(): void {
    if (this.#stopping.signal.aborted) return;
    if (this.#ring.push()) this.#parts.notifyControl();
    this.#sendEvent();
  }

  /** The errno that answers `error`; rethrows what is neither the guest's nor the system's doing. */
  #errnoOf(error: unknown): number {
    const { refusals } = this.#parts;
    if (error instanceof ProtocolViolation) {
      refusals.add(error);
      return XEN_ERRNO[error.errnoName];
    }
    if (!(error instanceof SysError)) throw error;
    refusals.addFailure(error);
    const name = `XEN_${error.errnoName}` as XenErrnoName;
    return XEN_ERRNO[name] ?? XEN_ERRNO.XEN_EIO;
  }

  #breakOff(error: unknown): void {
    if (this.#stopping.signal.aborted) return;
    this.stop();
    this.#parts.fail(error instanceof Error ? error : new Error(String(error)));
  }
}

/** What there is to wait for of two things, neither of which rejects. */
function both(
  one: Promise<void> | undefined,
  other: Promise<void> | undefined,
): Promise<void> | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Promise.all([one, other]).then(() => {});
}
