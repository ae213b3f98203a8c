// Guests with a display and a keyboard that do not mind what becomes of the daemon: one with frontends of ours, one
// that shakes hands as Linux's drivers do. Both paint in rounds, each with every request that there is for buffers,
// and write down what reaches them.

import { displSring } from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { DisplayFrontend } from '../../src/display/frontend.ts';
import { FrontendConnector } from '../../src/display/frontend-connector.ts';
import { type GuestBuffer, GuestDisplay } from '../../src/display/guest-display.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { KeyboardFrontend } from '../../src/input/frontend.ts';
import { decodeKbdEvent, IN_RING } from '../../src/input/kbd-events.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { type Runtime, sleep } from '../../src/runtime/runtime.ts';
import { Scope } from '../../src/runtime/scope.ts';
import type { EventChannel } from '../../src/xen/domain.ts';
import { EventConsumer } from '../../src/xen/event-page.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { initRing } from '../../src/xen/ring.ts';
import { check } from '../../src/xen/untrusted.ts';
import { DrmFront, KbdFront } from '../xen/xenbus/linux-frontends.ts';

export const WIDTH = 32;
export const HEIGHT = 32;
const FLIP_PAUSE_MS = 20;
const REFUSED_PAUSE_MS = 100;
const FLIPS_PER_ROUND = 2;

export type GuestKind = 'ours' | 'linux';

export interface GuestParts {
  readonly runtime: Runtime;
  readonly domain: GuestDomain;
  readonly beAlloc: boolean;
  /** How long the programs of a Linux guest keep their buffers when the display goes away. */
  readonly clientsMs?: number;
}

/** What a guest went through, whatever its drivers are. */
export abstract class PaintingGuest {
  readonly domain: GuestDomain;
  protected readonly runtime: Runtime;
  protected readonly beAlloc: boolean;
  /** Complete rounds: buffers made, shown, flipped between, and destroyed. */
  rounds = 0;
  flips = 0;
  /** Keys that are down. */
  readonly down = new Set<number>();
  readonly pressed: number[] = [];
  protected readonly ownFailures: unknown[] = [];

  constructor({ runtime, domain, beAlloc }: GuestParts) {
    this.runtime = runtime;
    this.domain = domain;
    this.beAlloc = beAlloc;
  }

  abstract start(): Promise<void>;

  /** What went wrong for good, and would be mended by a reboot alone: nothing, whatever the daemon does. */
  get failures(): readonly unknown[] {
    return this.ownFailures;
  }

  /** The colour that this guest paints in, in every byte of a pixel. */
  get colour(): number {
    return 0x40 + this.domain.domid;
  }

  protected key(code: number, isDown: boolean): void {
    if (isDown) {
      this.down.add(code);
      this.pressed.push(code);
    } else {
      this.down.delete(code);
    }
  }

  /** Paints until the display or the guest is over. What the daemon refuses is asked for again. */
  protected async paint(display: GuestDisplay, isOver: () => boolean): Promise<void> {
    while (!isOver() && !this.domain.stopped.aborted) {
      try {
        await this.#round(display);
      } catch (error) {
        if (!isOver() && !(error instanceof SysError)) this.ownFailures.push(error);
        await sleep(this.runtime, REFUSED_PAUSE_MS);
      }
    }
  }

  async #round(display: GuestDisplay): Promise<void> {
    const buffers: GuestBuffer[] = [];
    const framebuffers = [];
    for (let index = 0; index < 2; index++) {
      const buffer = await display.createBuffer({ width: WIDTH, height: HEIGHT, format: XRGB8888 });
      buffer.bytes.fill(this.colour);
      buffers.push(buffer);
      framebuffers.push(await display.attach(buffer));
    }
    await display.setMode(0, framebuffers[0]);
    for (let flip = 1; flip <= FLIPS_PER_ROUND; flip++) {
      await display.flipped(0, framebuffers[flip % 2]!);
      this.flips += 1;
      await sleep(this.runtime, FLIP_PAUSE_MS);
    }
    await display.setMode(0, undefined);
    for (const framebuffer of framebuffers) await display.detach(framebuffer);
    for (const buffer of buffers) await display.destroyBuffer(buffer);
    this.rounds += 1;
  }
}

export class OurGuest extends PaintingGuest {
  async start(): Promise<void> {
    const { runtime, domain } = this;
    const onFailed = (reason: Error) => void this.ownFailures.push(reason);
    let current: GuestDisplay | undefined;
    await DisplayFrontend.open({
      runtime,
      domain,
      onFailed,
      onConnected: (display) => {
        current = display;
        void this.paint(display, () => current !== display);
      },
      onDisconnected: () => {
        current = undefined;
      },
    });
    const handlers = { key: (code: number, isDown: boolean) => this.key(code, isDown) };
    await KeyboardFrontend.open({ runtime, domain, onFailed, handlers });
  }
}

export class LinuxGuest extends PaintingGuest {
  readonly #display: LinuxDisplay;
  readonly #keyboard: LinuxKeyboard;

  constructor(parts: GuestParts) {
    super(parts);
    const { runtime, domain } = parts;
    const at = { backendDomid: DOM0, domid: domain.domid, devid: 0 } as const;
    const vdispl = { ...at, backendType: 'vdispl', frontendType: 'vdispl' };
    const vkbd = { ...at, backendType: 'vinput', frontendType: 'vkbd' };
    this.#display = new LinuxDisplay(parts, vdispl, (display, isOver) => {
      void this.paint(display, isOver);
    });
    this.#keyboard = new LinuxKeyboard(runtime, domain, vkbd);
    this.#keyboard.onKey = (code, isDown) => this.key(code, isDown);
  }

  override get failures(): readonly unknown[] {
    return [...this.ownFailures, ...this.#display.errors, ...this.#keyboard.errors];
  }

  async start(): Promise<void> {
    await this.#display.probe();
    await this.#keyboard.probe();
  }
}

/** xen-drm-front, with what it publishes for one connector, and programs that have the device open. */
class LinuxDisplay extends DrmFront {
  readonly #parts: GuestParts;
  readonly #onDisplay: (display: GuestDisplay, isOver: () => boolean) => void;
  #rings: Scope | undefined;
  /** What the programs have; goes when they close the device. */
  #opened: Scope | undefined;
  #connector: FrontendConnector | undefined;

  constructor(
    parts: GuestParts,
    device: ConstructorParameters<typeof DrmFront>[2],
    onDisplay: (display: GuestDisplay, isOver: () => boolean) => void,
  ) {
    super(parts.runtime, parts.domain, device);
    this.#parts = parts;
    this.#onDisplay = onDisplay;
  }

  protected override async publish(): Promise<void> {
    const { runtime, domain } = this.#parts;
    const scope = new Scope('rings');
    this.#rings = scope;
    const pages = scope.own(await domain.grants.share({ domid: DOM0, pages: 2, writable: true }));
    const controlPage = pages.bytes.subarray(0, PAGE_SIZE);
    initRing(controlPage, displSring);
    const channel = async (handler: () => void) =>
      scope.own(await domain.events.allocUnbound({ remote: DOM0, handler }));
    const control = await channel(() => connector.onResponses());
    const events = await channel(() => connector.onEvents());
    const connector = new FrontendConnector({
      runtime,
      index: 0,
      width: WIDTH,
      height: HEIGHT,
      controlPage,
      eventPage: pages.bytes.subarray(PAGE_SIZE),
      notify: () => control.notify(),
      fail: (error) => void this.errors.push(error),
    });
    scope.defer(() => connector.close());
    this.#connector = connector;
    await this.domain.store.transaction(async (access) => {
      const node = (key: string, value: number) =>
        access.write(`${this.paths.frontend}/0/${key}`, String(value));
      await node('req-ring-ref', pages.refs[0]!);
      await node('evt-ring-ref', pages.refs[1]!);
      await node('req-event-channel', control.port);
      await node('evt-event-channel', events.port);
    });
  }

  protected override async react(backend: Parameters<DrmFront['react']>[0]): Promise<void> {
    await super.react(backend);
    if (this.state === 4 && this.#opened === undefined) this.#open();
  }

  /** The rings go at once; the programs notice, and close what they have in their own time. */
  protected override async free(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    await this.#rings?.close();
    const { runtime, clientsMs = 0 } = this.#parts;
    if (clientsMs === 0) await opened?.close();
    else void sleep(runtime, clientsMs).then(() => opened?.close());
  }

  #open(): void {
    const { domain, beAlloc, clientsMs = 0 } = this.#parts;
    const scope = new Scope('programs');
    this.#opened = scope;
    if (clientsMs > 0) this.clients = new Promise((resolve) => scope.defer(resolve));
    const display = new GuestDisplay({
      domain,
      backendDomid: DOM0,
      connectors: [this.#connector!],
      scope,
      backendAllocates: beAlloc,
    });
    this.#onDisplay(display, () => this.#opened !== scope);
  }
}

/** xen-kbdfront, with what it publishes, and the input core behind it. */
class LinuxKeyboard extends KbdFront {
  onKey: (code: number, isDown: boolean) => void = () => {};

  protected override async publish(): Promise<void> {
    this.page = await this.domain.grants.share({ domid: DOM0, pages: 1, writable: true });
    const events = new EventConsumer(this.page.bytes, IN_RING);
    const channel: EventChannel = await this.domain.events.allocUnbound({
      remote: DOM0,
      handler: () => {
        for (let slot = events.next(); slot; slot = events.next()) {
          const event = check(slot, decodeKbdEvent);
          if (event?.kind === 'key') this.onKey(event.code, event.pressed);
        }
        events.confirm();
        channel.notify();
      },
    });
    this.channel = channel;
    await this.domain.store.transaction(async (access) => {
      const node = (key: string, value: number) =>
        access.write(`${this.paths.frontend}/${key}`, String(value));
      await node('page-gref', this.page!.refs[0]!);
      await node('event-channel', channel.port);
    });
  }
}
