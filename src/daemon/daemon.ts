// The driver-domain daemon: serves the PV displays and keyboards of all guests on one domain's devices,
// whoever provides that domain, and tells what it serves and holds.
//
// Start-up, in order: the ledger and the outputs, the device classes, then one bus per type of device in
// xenstore (`vdispl`; `vkbd` and `vinput`, libxl's two names for keyboards). Everything a guest makes us hold
// goes through its accounted domain; when its last device leaves, its row must be empty, which is asserted.

import { DisplayBackend } from '../display/backend.ts';
import { GuestInputs, KEYBOARD_TYPES, KeyboardBackend } from '../input/backend.ts';
import type { GuestInput } from '../input/guest-input.ts';
import { BrowserOutput } from '../outputs/browser/browser-output.ts';
import type { Screen } from '../outputs/screen.ts';
import type { ScreenOutput, ScreenOutputOptions } from '../outputs/screen-output.ts';
import { messageOf } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import type { Domain } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import { BackendBus } from '../xen/xenbus/backend-bus.ts';
import type { BackendDriver, GuestContext, HeldBuffer } from '../xen/xenbus/driver.ts';
import { Guests } from '../xen/xenbus/guests.ts';
import type { Budget } from '../zcopy/budget.ts';
import { openGuest } from '../zcopy/guest.ts';
import { type Account, Ledger } from '../zcopy/ledger.ts';
import type {
  BufferStatus,
  DaemonStatus,
  GuestStatus,
  InputStatus,
  ServiceStatus,
} from './status.ts';
import { CONTROL_ACTIONS } from './status.ts';
import type { DaemonView, GuestControls } from './view.ts';

export interface DaemonOptions {
  readonly runtime: Runtime;
  /** Our own domain; the daemon uses it and does not close it. */
  readonly domain: Domain;
  /** What each guest may make us hold, and how fast it may make us work. */
  readonly budget: Budget;
  /** The same for guests that have budgets of their own, by name. */
  readonly guestBudgets?: ReadonlyMap<string, Budget>;
  readonly refreshHz: number;
  /** Makes the output, which the daemon then owns; without it, pictures go to viewers alone. */
  readonly output?: (options: ScreenOutputOptions) => ScreenOutput;
  /** What the host gives, for the status. */
  readonly hostPaths: DaemonStatus['host']['paths'];
  /** Where this process is the host of the guests. */
  readonly controls?: GuestControls;
  /** Told of the daemon's books, for one who compares them with the hypervisor's. */
  readonly onLedger?: (ledger: Ledger) => void;
}

const NO_INPUT: InputStatus = { state: 'closed', area: { width: 0, height: 0 } };

/** A guest's row, for its status. */
function rowOf(
  account: Account,
): Pick<GuestStatus, 'held' | 'budget' | 'buffers' | 'refused' | 'throttled'> {
  const { held, budget, buffers, refused, throttled } = account;
  return { held, budget, buffers: buffers.map(bufferStatus), refused, throttled };
}

function bufferStatus(buffer: HeldBuffer): BufferStatus {
  const { name, pages, direction, contiguity = null, dmaBuf, state, holders } = buffer;
  return { name, pages, direction, contiguity, dmaBuf, state, holders };
}

/** A guest that has devices now. */
interface Served {
  readonly account: Account;
  readonly name: string;
  closing: boolean;
}

export class Daemon implements DaemonView, AsyncDisposable {
  readonly controls: GuestControls | undefined;
  readonly #options: DaemonOptions;
  readonly #ledger: Ledger;
  readonly #served = new Map<DomId, Served>();
  readonly #listeners = new Set<() => void>();
  readonly #scope = new Scope('daemon');
  readonly #output: ScreenOutput;
  readonly #buses: BackendBus[] = [];
  readonly #displays: DisplayBackend;
  readonly #inputs: GuestInputs;

  private constructor(options: DaemonOptions) {
    const { runtime, refreshHz, controls } = options;
    this.#options = options;
    this.controls = controls;
    this.#ledger = new Ledger((error) => {
      runtime.log.error({ err: error }, 'the row of a guest that is gone cannot be closed');
    });
    options.onLedger?.(this.#ledger);
    const onChange = () => this.#changed();
    const { output = (its) => new BrowserOutput(its) } = options;
    this.#output = this.#scope.own(output({ runtime, refreshHz, onChange }));
    this.#displays = new DisplayBackend({ output: this.#output });
    this.#inputs = new GuestInputs(onChange);
  }

  /**
   * Serves the guests that are there and those that will come.
   * @throws SysError when xenstore refuses, or what the output throws
   */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options);
    const { runtime, domain } = options;
    const guests = new Guests((domid) => daemon.#admit(domid));
    try {
      for (const driver of daemon.#drivers()) {
        const bus = await BackendBus.open({ runtime, domain, driver, guests });
        daemon.#buses.push(daemon.#scope.own(bus));
      }
    } catch (error) {
      await daemon.#scope.close();
      throw error;
    }
    return daemon;
  }

  status(): DaemonStatus {
    const { domain, hostPaths } = this.#options;
    const present = [...this.#served].map(([domid, served]) => this.#statusOf(domid, served));
    return {
      guests: [...present, ...this.#gone(), ...this.#deviceless()],
      host: { provider: domain.provider, paths: hostPaths, output: this.#output.status() },
      controls: this.controls ? CONTROL_ACTIONS : [],
    };
  }

  nameOf(domid: DomId): string | undefined {
    const isIt = (guest: { readonly domid: DomId }) => guest.domid === domid;
    const { controls } = this;
    return (this.#served.get(domid) ?? this.#lingering.find(isIt) ?? controls?.guests.find(isIt))
      ?.name;
  }

  screen(domid: DomId, connector: number): Screen | undefined {
    return this.#output.screen(domid, connector);
  }

  input(domid: DomId): GuestInput | undefined {
    return this.#inputs.get(domid);
  }

  onChange(listener: () => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** Disconnects every guest in good order and gives everything back; the next daemon can take up. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#scope.close();
  }

  #drivers(): BackendDriver[] {
    const inputs = this.#inputs;
    const keyboards = KEYBOARD_TYPES.map((type) => new KeyboardBackend({ type, inputs }));
    return [this.#displays, ...keyboards];
  }

  /** The first device of a guest appeared. */
  async #admit(domid: DomId): Promise<GuestContext> {
    const { runtime, domain } = this.#options;
    const name = (await domain.store.read(`/local/domain/${domid}/name`)) ?? `domain-${domid}`;
    const ledger = this.#ledger;
    const budget = this.#budgetOf(name);
    const { context, account } = openGuest({ runtime, domain, ledger, budget, domid, name });
    const { scope } = context;
    const served: Served = { account, name, closing: false };
    this.#served.set(domid, served);
    scope.defer(() => {
      this.#served.delete(domid);
      this.#changed();
    });
    scope.signal.addEventListener('abort', () => {
      served.closing = true;
    });
    this.#changed();
    return context;
  }

  #budgetOf(name: string): Budget {
    return this.#options.guestBudgets?.get(name) ?? this.#options.budget;
  }

  #statusOf(domid: DomId, { account, name, closing }: Served): GuestStatus {
    const connectors = this.#displays.connectorsOf(domid);
    const input = this.input(domid);
    const connected = connectors.length > 0 || input?.state === 'connected';
    return {
      domid,
      name,
      state: closing ? 'closing' : connected ? 'connected' : 'waiting',
      services: this.#servicesOf(domid),
      displays: connectors.map((connector) => {
        const screen = this.screen(domid, connector.connector);
        return {
          ...connector,
          viewLatencyMs: screen?.viewLatencyMs ?? null,
          viewers: screen?.viewers ?? 0,
        };
      }),
      input: input
        ? { state: input.state, area: input.area }
        : { state: 'waiting', area: { width: 0, height: 0 } },
      ...rowOf(account),
    };
  }

  #servicesOf(domid: DomId): ServiceStatus[] {
    return this.#buses
      .flatMap(({ devices }) => devices)
      .filter((device) => device.domid === domid)
      .map(({ type, devid, backendState, frontendState, restarts, lastError = null }) => {
        return { type, devid, backendState, frontendState, restarts, lastError };
      });
  }

  /** Guests without a device of whose buffers something is still in use. */
  #gone(): GuestStatus[] {
    return this.#lingering.map((account) => ({
      domid: account.domid,
      name: account.name,
      state: 'closing',
      services: this.#servicesOf(account.domid),
      displays: [],
      input: NO_INPUT,
      ...rowOf(account),
    }));
  }

  get #lingering(): Account[] {
    return [...this.#ledger.accounts].filter(({ domid }) => !this.#served.has(domid));
  }

  /** Guests of this host that have no device now. */
  #deviceless(): GuestStatus[] {
    const known = this.controls?.guests ?? [];
    return known
      .filter(({ domid }) => !this.#served.has(domid))
      .filter(({ domid }) => !this.#lingering.some((account) => account.domid === domid))
      .map(({ domid, name, state }) => ({
        domid,
        name,
        state,
        services: [],
        displays: [],
        input: NO_INPUT,
        held: this.#ledger.heldBy(domid),
        budget: this.#budgetOf(name),
        buffers: [],
        refused: {},
        throttled: {},
      }));
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener();
      } catch (error) {
        this.#options.runtime.log.error({ reason: messageOf(error) }, 'a listener failed');
      }
    }
  }
}
