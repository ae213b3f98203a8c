// An imported share as the viewer's server sees it: one guest, named as the share, with one screen and nothing to
// type on.

import type { DaemonStatus, GuestState, GuestStatus } from '../../daemon/status.ts';
import type { DaemonView } from '../../daemon/view.ts';
import { FlipMeter } from '../../display/flip-meter.ts';
import { Screen } from '../../outputs/screen.ts';
import type { Runtime } from '../../runtime/runtime.ts';
import type { PictureContent } from '../../share/metadata.ts';
import type { OfferedShare } from '../../share/offered-share.ts';
import type { DomId } from '../../xen/ids.ts';
import type { Ledger } from '../../zcopy/ledger.ts';

const CONNECTOR = 0;
const NO_INPUT = { state: 'closed', area: { width: 0, height: 0 } } as const;

export interface SharedViewOptions {
  readonly runtime: Runtime;
  /** Of the importer: what exporters make us hold. */
  readonly ledger: Ledger;
  /** Of the domain, for people. */
  readonly provider: string;
  readonly refreshHz: number;
}

/** What is shown now, or was shown last. */
interface Shown {
  readonly share: OfferedShare;
  readonly screen: Screen;
  readonly meter: FlipMeter;
  state: GuestState;
}

export class SharedView implements DaemonView {
  readonly controls = undefined;
  readonly #options: SharedViewOptions;
  readonly #listeners = new Set<() => void>();
  #shown: Shown | undefined;

  constructor(options: SharedViewOptions) {
    this.#options = options;
  }

  /** A share begins to be shown; the meter is for who shows it. */
  begin(share: OfferedShare, { width, height }: PictureContent): Pick<Shown, 'screen' | 'meter'> {
    const { runtime, refreshHz } = this.#options;
    const { id, exporter: domid } = share;
    const info = { domid, index: CONNECTOR, uniqueId: id, width, height };
    const screen = new Screen(runtime, info, { refreshHz });
    this.#shown = { share, screen, meter: new FlipMeter(runtime), state: 'connected' };
    this.#changed();
    return this.#shown;
  }

  /** It is over: the page says so until the next one begins. */
  async end(state: 'stopped' | 'crashed'): Promise<void> {
    if (this.#shown === undefined) return;
    this.#shown.state = state;
    await this.#shown.screen[Symbol.asyncDispose]();
    this.#changed();
  }

  status(): DaemonStatus {
    const { provider } = this.#options;
    const guests = this.#shown === undefined ? [] : [this.#guest(this.#shown)];
    return { guests, host: { provider, paths: {} }, controls: [] };
  }

  nameOf(domid: DomId): string | undefined {
    const guest = this.#shown && this.#guest(this.#shown);
    return guest?.domid === domid ? guest.name : undefined;
  }

  screen(domid: DomId, connector: number): Screen | undefined {
    if (this.#shown?.state !== 'connected' || connector !== CONNECTOR) return undefined;
    return this.#shown.share.exporter === domid ? this.#shown.screen : undefined;
  }

  input(): undefined {
    return undefined;
  }

  onChange(listener: () => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  #guest({ share, screen, meter, state }: Shown): GuestStatus {
    const { exporter: domid, id, metadata } = share;
    const account = [...this.#options.ledger.accounts].find((row) => row.domid === domid);
    return {
      domid,
      name: metadata.name || `share ${id}`,
      state,
      services: [],
      displays: state === 'connected' ? [displayOf({ screen, meter })] : [],
      input: NO_INPUT,
      held: this.#options.ledger.heldBy(domid),
      budget: account?.budget ?? {},
      buffers: [],
      refused: account?.refused ?? {},
      throttled: account?.throttled ?? {},
    };
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

function displayOf({ screen, meter }: Pick<Shown, 'screen' | 'meter'>): GuestStatus['displays'][0] {
  const { info, shown, bytesCopied, viewers, path } = screen;
  const { width, height } = shown ?? info;
  return {
    devid: 0,
    connector: CONNECTOR,
    uniqueId: info.uniqueId,
    width,
    height,
    format: shown?.format.name ?? null,
    flips: meter.flips,
    flipsPerSecond: meter.flipsPerSecond,
    flipLatencyMs: meter.latencyMs ?? null,
    bytesCopied,
    path,
    viewLatencyMs: screen.viewLatencyMs ?? null,
    viewers,
  };
}
