// Guests' displays on the monitors of one card (KMS), without a copy: the card scans out the very memory that
// the guest draws into. Each display has a screen for viewers too, which reads nothing while nobody watches.
//
// Invariants:
// - A display goes to the monitor whose connector has its `unique-id` for a name, or that the configuration names
//   for it. A monitor shows one display: the first that came. All others have the viewer.
// - What the card showed before is put back when the output is closed, and the master's role given up; when the
//   process is killed, the kernel does both.
// - Connectors are asked for their status now and then, rather than listening to uevents: that needs no socket
//   and no rights in any network namespace, a cable is slower than a person's hand anyhow, and the call makes the driver look
//   at nothing. The same round looks after the master's role. There is no timer while no display has a monitor.

import type { ConnectorInfo, OutputBufferRequest, OutputConnector } from '../../display/output.ts';
import { Card } from '../../linux/drm/card.ts';
import { DisplayState } from '../../linux/drm/display-state.ts';
import { CardEvents } from '../../linux/drm/events.ts';
import { Pipe } from '../../linux/drm/pipe.ts';
import { type CardConnector, readConnector, readStatus } from '../../linux/drm/resources.ts';
import { messageOf, SysError, UsageError } from '../../runtime/errors.ts';
import type { Runtime, Timer } from '../../runtime/runtime.ts';
import type { DomId } from '../../xen/ids.ts';
import type { LocalBuffer } from '../../xen/memory.ts';
import { BrowserOutput } from '../browser/browser-output.ts';
import type { OutputStatus } from '../output-status.ts';
import type { Screen } from '../screen.ts';
import type { ScreenOutput, ScreenOutputOptions } from '../screen-output.ts';
import { allocateFor } from './guest-buffers.ts';
import { KmsConnector } from './kms-connector.ts';
import { PictureFrames } from './picture-frames.ts';
import { ViewerOnly } from './viewer-only.ts';

/** Between two looks at the connectors and at the master's role. */
const ROUND_MS = 2000;

export interface KmsOutputOptions extends ScreenOutputOptions {
  /** Which connector shows which display, by `unique-id`; the others go by their own names. */
  readonly connectors?: ReadonlyMap<string, string>;
}

/** A display on its monitor. */
interface Claim {
  readonly display: KmsConnector;
  readonly pipe: Pipe;
}

export class KmsOutput implements ScreenOutput {
  readonly importsBuffers = true;
  readonly #runtime: Runtime;
  readonly #options: KmsOutputOptions;
  readonly #card: Card;
  readonly #events: CardEvents;
  readonly #before: DisplayState;
  readonly #screens: BrowserOutput;
  readonly #viewerOnly = new ViewerOnly();
  /** By the connector's name. */
  readonly #claims = new Map<string, Claim>();
  readonly #counters = { masterLost: 0, stalled: 0, refused: 0, unplugged: 0 };
  /** What was logged, so that each kind of memory is complained about once. */
  readonly #logged = new Set<string>();
  #master: boolean;
  #round: Timer | undefined;
  #lost = false;
  #closed = false;

  /** Owns `card`. @throws UsageError when a configured connector is not there, SysError */
  constructor(card: Card, options: KmsOutputOptions) {
    this.#card = card;
    this.#options = options;
    this.#runtime = options.runtime;
    this.#screens = new BrowserOutput(options);
    try {
      this.#master = card.becomeMaster();
      checkConfigured(card, options.connectors);
      this.#before = DisplayState.read(card);
      this.#events = new CardEvents(card.file, (error) => this.#cardLost(error));
    } catch (error) {
      card[Symbol.dispose]();
      throw error;
    }
    if (!this.#master) this.#sayMasterMissing();
  }

  /** Opens the card at `path`. @throws UsageError, or SysError when it is none that can be used */
  static open(path: string, options: KmsOutputOptions): KmsOutput {
    return new KmsOutput(Card.open(path), options);
  }

  async connect(info: ConnectorInfo, runtime = this.#runtime): Promise<OutputConnector> {
    const screen = await this.#screens.connect(info, runtime);
    const name = this.#options.connectors?.get(info.uniqueId) ?? info.uniqueId;
    try {
      const claimed = this.#claim(name, screen);
      if (typeof claimed !== 'string') return claimed;
      return this.#viewerOnlyConnector(screen, claimed);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      return this.#viewerOnlyConnector(screen, error.message);
    }
  }

  async allocate(request: OutputBufferRequest): Promise<LocalBuffer | undefined> {
    if (this.#lost || !this.#hasMonitor(request.domid)) return undefined;
    try {
      return await allocateFor(this.#card, request);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      const { domid, width, height, stride } = request;
      const context = { domid, width, height, stride, reason: error.message };
      this.#runtime.log.warn(context, `kms: ${this.#card.title} has no buffer for this display`);
      return undefined;
    }
  }

  screen(domid: DomId, connector: number): Screen | undefined {
    return this.#screens.screen(domid, connector);
  }

  status(): OutputStatus {
    const monitors = [...this.#claims].map(([connector, { display }]) => ({
      connector,
      connected: display.connector.status !== 'disconnected',
      domid: display.info.domid,
      uniqueId: display.info.uniqueId,
      showing: display.showing,
    }));
    return {
      name: this.#card.title,
      monitors,
      viewerOnly: this.#viewerOnly.list,
      counters: { ...this.#counters, master: this.#master ? 1 : 0 },
    };
  }

  /** Puts back what the card showed before and closes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#round?.cancel();
    for (const { display } of [...this.#claims.values()]) await display[Symbol.asyncDispose]();
    this.#events[Symbol.dispose]();
    try {
      if (!this.#lost && this.#card.becomeMaster()) {
        this.#before.restore(this.#card);
        this.#card.dropMaster();
      }
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      this.#runtime.log.warn({ reason: error.message }, 'kms: the console is left to the kernel');
    } finally {
      this.#card[Symbol.dispose]();
    }
  }

  /** The display on its monitor, or why it has none. @throws SysError */
  #claim(name: string, screen: Screen): KmsConnector | string {
    const { title } = this.#card;
    if (this.#lost) return `${title} is gone`;
    const holder = this.#claims.get(name);
    if (holder !== undefined) {
      const { domid, uniqueId } = holder.display.info;
      return `connector ${name} of ${title} shows display ${uniqueId} of domain ${domid}`;
    }
    const connectors = this.#card.connectors({ probe: false });
    const id = connectors.find((candidate) => candidate.name === name)?.id;
    // Probing takes a monitor's time, so the others are left alone.
    const connector = id && readConnector(this.#card.file, id, { probe: true });
    if (!connector) {
      const names = connectors.map((candidate) => candidate.name).join(', ');
      return `${title} has no connector ${name}; it has ${names}`;
    }
    return this.#put(screen, connector);
  }

  #put(screen: Screen, connector: CardConnector): KmsConnector | string {
    const [card, events, before] = [this.#card, this.#events, this.#before];
    const taken = new Set(
      [...this.#claims.values()].flatMap(({ pipe: { crtc, plane } }) => [crtc, plane.id]),
    );
    const pipe = Pipe.find({ card, events, before, connector, taken });
    if (pipe === undefined) {
      return `every CRTC of ${card.title} that leads to ${connector.name} is in use`;
    }
    const display = new KmsConnector({
      runtime: this.#runtime,
      screen,
      connector,
      frames: new PictureFrames(card, pipe.plane.formats),
      master: this.#master,
      modes: connector.modes,
      pipe,
      listener: {
        onRefused: (own, refusal) => this.#refused(own, refusal),
        onMasterLost: () => this.#masterLost(),
        onStalled: (own) => this.#stalled(own),
        onClosed: () => this.#free(connector.name),
      },
    });
    this.#claims.set(connector.name, { display, pipe });
    this.#scheduleRound();
    const { domid, uniqueId } = screen.info;
    const where = { domid, uniqueId, connector: connector.name, status: connector.status };
    this.#runtime.log.info(where, `kms: ${card.title} has a monitor for this display`);
    return display;
  }

  #free(name: string): void {
    const claim = this.#claims.get(name);
    this.#claims.delete(name);
    claim?.pipe[Symbol.dispose]();
    if (this.#claims.size > 0) return;
    this.#round?.cancel();
    this.#round = undefined;
  }

  #viewerOnlyConnector(screen: Screen, reason: string): OutputConnector {
    const { domid, uniqueId } = screen.info;
    this.#runtime.log.warn({ domid, uniqueId, reason }, 'kms: this display has the viewer only');
    return this.#viewerOnly.add(screen, reason);
  }

  #hasMonitor(domid: DomId): boolean {
    return [...this.#claims.values()].some(({ display }) => display.info.domid === domid);
  }

  #scheduleRound(): void {
    if (this.#lost || this.#closed) return;
    this.#round ??= this.#runtime.after(ROUND_MS, () => {
      this.#round = undefined;
      try {
        this.#goRound();
      } catch (error) {
        this.#cardLost(error);
      }
      if (this.#claims.size > 0) this.#scheduleRound();
    });
  }

  #goRound(): void {
    if (!this.#master && this.#card.becomeMaster()) {
      this.#master = true;
      this.#runtime.log.info(`kms: sets modes of ${this.#card.title} again`);
      for (const { display } of this.#claims.values()) display.mastered(true);
    }
    for (const { display } of this.#claims.values()) {
      this.#lookAtPlug(display);
      display.tend();
    }
  }

  #lookAtPlug(display: KmsConnector): void {
    const { id, name, status } = display.connector;
    if (readStatus(this.#card.file, id) === status) return;
    const found = readConnector(this.#card.file, id, { probe: true });
    if (found === undefined || found.status === status) return;
    if (found.status === 'disconnected') this.#counters.unplugged += 1;
    this.#runtime.log.info(
      { connector: name, status: found.status },
      'kms: a monitor came or went',
    );
    display.replugged(found);
    this.#options.onChange?.();
  }

  #refused({ connector }: KmsConnector, { kind, reason }: { kind: string; reason: string }): void {
    this.#counters.refused += 1;
    const key = `${kind} ${connector.name}`;
    if (this.#logged.has(key)) return;
    this.#logged.add(key);
    const what = `kms: ${this.#card.title} cannot scan out ${kind}; showing it in the viewer only`;
    const remedy = 'be-alloc=1 in the vdispl line gives the guest buffers of the card';
    this.#runtime.log.warn({ connector: connector.name, reason, remedy }, what);
  }

  #masterLost(): void {
    if (!this.#master) return;
    this.#master = false;
    this.#counters.masterLost += 1;
    this.#sayMasterMissing();
    for (const { display } of this.#claims.values()) display.mastered(false);
  }

  #sayMasterMissing(): void {
    const what = `kms: another program sets modes of ${this.#card.title}; showing in the viewer until it stops`;
    this.#runtime.log.warn(what);
  }

  #stalled({ connector }: KmsConnector): void {
    this.#counters.stalled += 1;
    const what = `kms: ${this.#card.title} does not finish a flip; showing in the viewer until it does`;
    this.#runtime.log.warn({ connector: connector.name }, what);
  }

  /** The card was unplugged or its driver unloaded: everything goes on in the viewer. */
  #cardLost(error: unknown): void {
    if (this.#lost) return;
    this.#lost = true;
    this.#master = false;
    const reason = messageOf(error);
    this.#runtime.log.error(
      { reason },
      `kms: ${this.#card.title} is gone; showing in the viewer only`,
    );
    for (const { display } of this.#claims.values()) display.mastered(false);
    this.#options.onChange?.();
  }
}

function checkConfigured(card: Card, connectors: ReadonlyMap<string, string> | undefined): void {
  if (connectors === undefined || connectors.size === 0) return;
  const names = card.connectors({ probe: false }).map(({ name }) => name);
  for (const [uniqueId, name] of connectors) {
    if (names.includes(name)) continue;
    const has = `${card.title} has ${names.join(', ')}`;
    throw new UsageError(`kms: no connector ${name} for display ${uniqueId}: ${has}`);
  }
}
