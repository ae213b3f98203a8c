// A keyboard and pointer frontend for guests in this process and for tests: what xen-kbdfront does, without
// the input core. Backends are not trusted with more than events: indices are checked, codes are bounded.

import {
  XENKBD_DRIVER_NAME,
  XENKBD_FIELD_EVT_CHANNEL,
  XENKBD_FIELD_FEAT_ABS_POINTER,
  XENKBD_FIELD_FEAT_MTOUCH,
  XENKBD_FIELD_HEIGHT,
  XENKBD_FIELD_REQ_ABS_POINTER,
  XENKBD_FIELD_REQ_MTOUCH,
  XENKBD_FIELD_RING_GREF,
  XENKBD_FIELD_WIDTH,
} from '../abi/kbdif.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { Scope } from '../runtime/scope.ts';
import type { Domain, EventChannel } from '../xen/domain.ts';
import { EventConsumer } from '../xen/event-page.ts';
import { check } from '../xen/untrusted.ts';
import { FrontendDevice, type FrontendDriver } from '../xen/xenbus/frontend-device.ts';
import { parseFlag, parseU32 } from '../xen/xenbus/parse.ts';
import { decodeKbdEvent, IN_RING, type KbdEvent } from './kbd-events.ts';
import type { Area } from './keyboard-input.ts';

/** What the guest's program does with its input; what it leaves out is ignored. */
export interface KeyboardHandlers {
  /** Codes are Linux evdev codes, buttons included. */
  readonly key?: (code: number, pressed: boolean) => void;
  readonly motion?: (dx: number, dy: number) => void;
  readonly position?: (x: number, y: number) => void;
  /** Detents, positive away from the user. */
  readonly wheel?: (delta: number) => void;
  readonly touch?: (
    contact: number,
    place: { readonly x: number; readonly y: number } | undefined,
  ) => void;
  /** The end of a group of touches that happened together. */
  readonly sync?: () => void;
}

export interface KeyboardFrontendOptions {
  readonly runtime: Runtime;
  /** The guest's own domain. */
  readonly domain: Domain;
  /** 0 unless the guest has several keyboards. */
  readonly devid?: number;
  readonly handlers: KeyboardHandlers;
  /** The backend has connected; `area` is what positions lie in, undefined with a relative pointer. */
  readonly onConnected?: (area: Area | undefined) => void;
  /** The device stopped for good. */
  readonly onFailed?: (reason: Error) => void;
}

export class KeyboardFrontend implements AsyncDisposable {
  readonly #device: FrontendDevice;

  private constructor(device: FrontendDevice) {
    this.#device = device;
  }

  /** Starts the device that the toolstack made for this guest. @throws ProtocolViolation, SysError */
  static async open(options: KeyboardFrontendOptions): Promise<KeyboardFrontend> {
    const { runtime, domain, devid = 0 } = options;
    const driver = new KeyboardDriver(options);
    return new KeyboardFrontend(await FrontendDevice.open({ runtime, domain, driver, devid }));
  }

  /** Takes leave of the backend and takes back what it had. */
  close(): Promise<void> {
    return this.#device.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

class KeyboardDriver implements FrontendDriver {
  readonly type = XENKBD_DRIVER_NAME;
  readonly #options: KeyboardFrontendOptions;
  readonly #pressed = new Set<number>();
  #area: Area | undefined;

  constructor(options: KeyboardFrontendOptions) {
    this.#options = options;
  }

  async publish(device: FrontendDevice, scope: Scope): Promise<Record<string, string>> {
    const { domain, backendDomid: domid } = device;
    const offered = async (key: string) => parseFlag(await device.readBackend(key));
    const absolute = await offered(XENKBD_FIELD_FEAT_ABS_POINTER);
    const touch = await offered(XENKBD_FIELD_FEAT_MTOUCH);
    this.#area = absolute ? await readArea(device) : undefined;
    scope.defer(() => this.#releaseAll());
    const page = scope.own(await domain.grants.share({ domid, pages: 1, writable: true }));
    const events = new EventConsumer(page.bytes, IN_RING);
    // Whoever goes by what an earlier frontend published may signal the port before we know that it is ours.
    let opened: EventChannel | undefined;
    const handler = () => this.#take(events, device, () => opened?.notify());
    const channel = scope.own(await domain.events.allocUnbound({ remote: domid, handler }));
    opened = channel;
    return {
      [XENKBD_FIELD_RING_GREF]: String(page.refs[0]),
      [XENKBD_FIELD_EVT_CHANNEL]: String(channel.port),
      [XENKBD_FIELD_REQ_ABS_POINTER]: absolute ? '1' : '0',
      [XENKBD_FIELD_REQ_MTOUCH]: touch ? '1' : '0',
    };
  }

  onConnected(): void {
    this.#options.onConnected?.(this.#area);
  }

  onFailed(reason: Error): void {
    this.#options.onFailed?.(reason);
  }

  /** Takes what is there, at most a ring's worth, and tells the backend that there is room again. */
  #take(events: EventConsumer, device: FrontendDevice, notify: () => void): void {
    try {
      let taken = 0;
      for (; taken < events.slots; taken++) {
        const slot = events.next();
        if (!slot) break;
        const event = check(slot, decodeKbdEvent);
        if (event) this.#handle(event);
      }
      if (taken === 0) return;
      events.confirm();
      notify();
    } catch (error) {
      device.fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #handle(event: KbdEvent): void {
    const { handlers } = this.#options;
    switch (event.kind) {
      case 'key':
        if (event.pressed) this.#pressed.add(event.code);
        else this.#pressed.delete(event.code);
        handlers.key?.(event.code, event.pressed);
        break;
      case 'motion':
        if (event.dx !== 0 || event.dy !== 0) handlers.motion?.(event.dx, event.dy);
        if (event.wheel !== 0) handlers.wheel?.(event.wheel);
        break;
      case 'position':
        handlers.position?.(event.x, event.y);
        if (event.wheel !== 0) handlers.wheel?.(event.wheel);
        break;
      case 'down':
      case 'move':
        handlers.touch?.(event.contact, { x: event.x, y: event.y });
        break;
      case 'up':
        handlers.touch?.(event.contact, undefined);
        break;
      case 'sync':
        handlers.sync?.();
    }
  }

  /** The backend is gone: what it did not release, nobody will. */
  #releaseAll(): void {
    for (const code of this.#pressed) this.#options.handlers.key?.(code, false);
    this.#pressed.clear();
  }
}

/** The range of absolute positions. @throws ProtocolViolation when the backend's nodes are malformed */
async function readArea(device: FrontendDevice): Promise<Area | undefined> {
  const width = await device.readBackend(XENKBD_FIELD_WIDTH);
  const height = await device.readBackend(XENKBD_FIELD_HEIGHT);
  if (width === undefined || height === undefined) return undefined;
  return {
    width: parseU32(width, XENKBD_FIELD_WIDTH),
    height: parseU32(height, XENKBD_FIELD_HEIGHT),
  };
}
