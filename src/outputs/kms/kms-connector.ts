// A guest's display that has a monitor: the card shows its pictures where it can, and the screen of the
// viewer has them either way.
//
// Invariants:
// - Every flip is completed once: by the card's event when the card has the picture, otherwise by the screen's own
//   refresh, and in any case before the watchdog's time is over. Whatever happens to the card, no guest waits.
// - The card and the screen never show different pictures for longer than a flip takes; where the card cannot show
//   one, the monitor goes dark, for a stale picture would look like the guest's.
// - What the card once refused is tried again with the next `show`, not with every flip.

import type { ConnectorInfo, OutputConnector, Picture } from '../../display/output.ts';
import type { CardConnector } from '../../linux/drm/resources.ts';
import type { SysError } from '../../runtime/errors.ts';
import { type Runtime, withTimeout } from '../../runtime/runtime.ts';
import type { Screen } from '../screen.ts';
import { Head, type HeadParts } from './head.ts';
import type { Frame, PictureFrames } from './picture-frames.ts';

/** How long closing waits for the monitor to go dark: some refreshes of the slowest. */
const CLOSE_PATIENCE_MS = 500;

/** Told of what there is to count and to log. */
export interface KmsConnectorListener {
  /** The card cannot show memory of this kind on this connector. */
  onRefused(connector: KmsConnector, refusal: { kind: string; reason: string }): void;
  onMasterLost(): void;
  onStalled(connector: KmsConnector): void;
  /** The connector is dark, and the monitor free. */
  onClosed(connector: KmsConnector): void;
}

export interface KmsConnectorParts extends Omit<HeadParts, 'listener'> {
  readonly runtime: Runtime;
  readonly screen: Screen;
  readonly connector: CardConnector;
  readonly frames: PictureFrames;
  /** Whether we may set modes now. */
  readonly master: boolean;
  readonly listener: KmsConnectorListener;
}

export class KmsConnector implements OutputConnector {
  readonly #runtime: Runtime;
  readonly #screen: Screen;
  readonly #frames: PictureFrames;
  readonly #head: Head;
  readonly #listener: KmsConnectorListener;
  #connector: CardConnector;
  #master: boolean;
  /** What the guest wants to be shown. */
  #picture: Picture | undefined;
  /** The frame of that picture, while the card shows it or is about to. */
  #frame: Frame | undefined;
  #refused = false;
  /** The flip whose event is to come from the card. */
  #flipping: Picture | undefined;
  #onFlipped: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(parts: KmsConnectorParts) {
    const { runtime, screen, connector, frames, master, listener, pipe, modes } = parts;
    this.#runtime = runtime;
    this.#screen = screen;
    this.#connector = connector;
    this.#frames = frames;
    this.#master = master;
    this.#listener = listener;
    const own = {
      onShown: (frame: Frame | undefined) => this.#shown(frame),
      onRefused: (frame: Frame, error: SysError) => this.#headRefused(frame, error),
      onMasterLost: () => listener.onMasterLost(),
      onStalled: () => this.#headStalled(),
    };
    this.#head = new Head(runtime, { pipe, modes, listener: own });
    if (!master) this.#head.pause();
  }

  get info(): ConnectorInfo {
    return this.#screen.info;
  }

  /** The monitor's place on the card, as last seen. */
  get connector(): CardConnector {
    return this.#connector;
  }

  /** Whether the card shows the guest's picture, or is about to. */
  get showing(): boolean {
    return this.#frame !== undefined;
  }

  get path(): string {
    if (this.#frame === undefined) return this.#screen.path;
    return this.#frame.own ? 'kms' : 'kms-import';
  }

  /** What was copied for viewers: the card reads the guest's memory itself. */
  get bytesCopied(): number {
    return this.#screen.bytesCopied;
  }

  show(picture: Picture | undefined): void {
    this.#completeFlip();
    this.#picture = picture;
    this.#screen.show(picture);
    this.#refused = false;
    this.#reconsider();
  }

  flip(picture: Picture, onFlipped: () => void): void {
    this.#completeFlip();
    this.#picture = picture;
    const frame = this.#frame && this.#frames.of(picture);
    if (frame === undefined) {
      if (this.#frame !== undefined) this.#cannotFrame(picture);
      this.#screen.flip(picture, onFlipped);
      return;
    }
    this.#frame = frame;
    this.#flipping = picture;
    this.#onFlipped = onFlipped;
    this.#head.show(frame);
  }

  async retire(picture: Picture): Promise<void> {
    if (this.#flipping === picture) this.#completeFlip();
    if (this.#picture === picture) {
      this.#picture = undefined;
      this.#leaveCard();
    }
    await this.#screen.retire(picture);
    const frame = this.#frames.find(picture);
    if (frame !== undefined) await this.#head.left(frame);
    if (this.#closing === undefined) this.#frames.remove(picture);
  }

  /** The cable was pulled or plugged, or a monitor of other modes came: all as read anew. */
  replugged(connector: CardConnector): void {
    this.#connector = connector;
    this.#head.modes = connector.modes;
    this.#refused = false;
    this.#frames.reconsider();
    this.#reconsider();
  }

  /** Somebody else sets modes now, or we do again. */
  mastered(master: boolean): void {
    this.#master = master;
    if (master) this.#head.resume();
    else this.#head.pause();
    this.#reconsider();
  }

  /** Looks whether a card that did not finish its work is well again. */
  tend(): void {
    if (!this.#head.stalled) return;
    this.#head.prod();
    if (!this.#head.stalled) this.#reconsider();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#flipping = undefined;
    this.#onFlipped = undefined;
    this.#picture = undefined;
    this.#leaveCard();
    if (await this.#dark()) this.#frames.clear();
    this.#head.close();
    await this.#screen[Symbol.asyncDispose]();
    this.#listener.onClosed(this);
  }

  /** Whether the card has let go of everything, in time; otherwise closing the card removes it. */
  async #dark(): Promise<boolean> {
    if (!this.#master) return true;
    const onTimeout = () => new Error('the monitor does not go dark');
    const left = this.#head.idle();
    const timeoutMs = CLOSE_PATIENCE_MS;
    return withTimeout(this.#runtime, left, { timeoutMs, onTimeout }).then(
      () => true,
      () => false,
    );
  }

  get #usable(): boolean {
    const plugged = this.#connector.status !== 'disconnected';
    return plugged && this.#master && !this.#refused && !this.#head.stalled;
  }

  /** Shows on the card what is wanted, if that is possible now. */
  #reconsider(): void {
    if (this.#closing !== undefined) return;
    const picture = this.#picture;
    if (picture === undefined || !this.#usable) {
      this.#leaveCard();
      return;
    }
    const frame = this.#frames.of(picture);
    if (frame === undefined) this.#cannotFrame(picture);
    else {
      this.#frame = frame;
      this.#head.show(frame);
    }
  }

  /** From here on the screen paces the flips; the monitor goes dark. */
  #leaveCard(): void {
    this.#frame = undefined;
    this.#head.off();
    const picture = this.#flipping;
    const onFlipped = this.#onFlipped;
    this.#flipping = undefined;
    this.#onFlipped = undefined;
    if (picture !== undefined && onFlipped !== undefined) this.#screen.flip(picture, onFlipped);
  }

  #cannotFrame(picture: Picture): void {
    const refusal = this.#frames.refusal(picture);
    this.#refused = true;
    this.#leaveCard();
    if (refusal !== undefined) this.#listener.onRefused(this, refusal);
  }

  #headRefused(frame: Frame, error: SysError): void {
    this.#frames.refuse(frame, error.message);
    this.#refused = true;
    this.#leaveCard();
    this.#listener.onRefused(this, { kind: frame.kind, reason: error.message });
  }

  #headStalled(): void {
    this.#leaveCard();
    this.#listener.onStalled(this);
  }

  #shown(frame: Frame | undefined): void {
    if (this.#flipping !== undefined) {
      if (frame?.picture !== this.#flipping) return;
      this.#screen.present(this.#flipping);
      this.#completeFlip();
    } else if (this.#frame === undefined) this.#reconsider();
  }

  #completeFlip(): void {
    const onFlipped = this.#onFlipped;
    this.#flipping = undefined;
    this.#onFlipped = undefined;
    onFlipped?.();
  }
}
