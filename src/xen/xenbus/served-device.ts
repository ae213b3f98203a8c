// One device of one guest: the backend's half of the xenbus handshake, from the moment the toolstack wrote
// the device until it removed it.
//
// It is a loop over observations, not over events: each run reads what the toolstack and the frontend say
// now, and does what the tables of states.ts ask for. So lost, merged, repeated and forged events are all
// the same. Invariants:
// - one run at a time, at a bounded rate (XSA-349, XSA-350);
// - grants and ports of a connection are released after Closing was shown and before Closed is;
// - a failure costs this device its connection and a growing pause, and nobody else anything.

import {
  XenbusStateClosed,
  XenbusStateConnected,
  XenbusStateInitialised,
  XenbusStateInitialising,
  XenbusStateInitWait,
  XenbusStateUnknown,
  xenbusStateName,
} from '../../abi/xenbus.ts';
import { messageOf, ProtocolViolation, SysError } from '../../runtime/errors.ts';
import { RateLimit } from '../../runtime/rate-limit.ts';
import { type Logger, type Runtime, sleep, type Timer } from '../../runtime/runtime.ts';
import { GrantMapError } from '../domain.ts';
import type { Xenstore } from '../xenstore.ts';
import { Attachment, FrontendMovedOn } from './attachment.ts';
import { type DeviceAddress, DeviceNodes, type OwnNodes } from './device-nodes.ts';
import type { BackendDriver } from './driver.ts';
import type { Guests } from './guests.ts';
import { SerialTask } from './serial-task.ts';
import { goodbye, parseState, wishOf, type XenbusState } from './states.ts';

/** How often one device's nodes are looked at when its guest keeps writing. */
const RUNS_PER_SECOND = 100;
const RUNS_BURST = 50;
/** Pause between runs once the burst is used up, in milliseconds. */
const RUN_PAUSE_MS = 1000 / RUNS_PER_SECOND;
/** Pause after the first failure in a row; doubles with each further one up to the maximum. */
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 5_000;
/** A connection that lasted this long ends a row of failures. */
const STABLE_MS = 30_000;
/** Log lines about failures of one device. */
const FAILURE_LINES = { perSecond: 0.1, burst: 5 };

export interface DeviceStatus extends DeviceAddress {
  readonly backendState: string;
  readonly frontendState: string;
  /** How often it was given up because of a failure, to start anew. */
  readonly restarts: number;
  /** The reason of the last failure. */
  readonly lastError?: string;
}

export interface ServedDeviceOptions {
  readonly runtime: Runtime;
  /** Our own xenstore connection, not charged to any guest. */
  readonly store: Xenstore;
  readonly driver: BackendDriver;
  readonly guests: Guests;
  readonly address: DeviceAddress;
  readonly log: Logger;
  /** There is no such device (any more), and nothing of it is left; `again` when it may be there again by now. */
  readonly onGone: (again: boolean) => void;
}

/** What a guest is to blame for, as a reason to count; undefined when it is not. */
function violationReason(error: unknown): string | undefined {
  if (error instanceof GrantMapError) return 'bad-grant';
  return error instanceof ProtocolViolation ? error.reason : undefined;
}

export class ServedDevice {
  readonly #options: ServedDeviceOptions;
  readonly #nodes: DeviceNodes;
  readonly #task = new SerialTask(() => this.#run());
  readonly #pace: RateLimit;
  readonly #failureLines: RateLimit;
  readonly #stopping = new AbortController();
  #attachment: Attachment | undefined;
  #frontendPath: string | undefined;
  #announced = false;
  /** Whether this device has shown InitWait in its present attachment. */
  #invited = false;
  #shown: XenbusState | undefined;
  /** As last read; Unknown before that. */
  #frontend: XenbusState = XenbusStateUnknown;
  #connectedAtMs: number | undefined;
  #restarts = 0;
  #failuresInARow = 0;
  #retryAtMs = 0;
  #retryTimer: Timer | undefined;
  #lastError: Error | undefined;

  constructor(options: ServedDeviceOptions) {
    this.#options = options;
    this.#nodes = new DeviceNodes(options.store, options.address);
    this.#pace = new RateLimit(options.runtime, { perSecond: RUNS_PER_SECOND, burst: RUNS_BURST });
    this.#failureLines = new RateLimit(options.runtime, FAILURE_LINES);
  }

  get status(): DeviceStatus {
    const error = this.#lastError;
    return {
      ...this.#options.address,
      restarts: this.#restarts,
      backendState: xenbusStateName(this.#shown ?? 0),
      frontendState: xenbusStateName(this.#frontend),
      ...(error ? { lastError: messageOf(error) } : {}),
    };
  }

  get #log(): Logger {
    return this.#attachment?.log ?? this.#options.log;
  }

  /** Something about the device may have changed: look at it soon. */
  kick(): void {
    this.#task.request();
  }

  /** Ends the service in good order: frontends see Closed, and the next backend can take up. */
  async close(): Promise<void> {
    this.#stopping.abort();
    await this.#task.stop();
    if (this.#attachment) await this.#guarded(() => this.#rest());
    // What is held is given back also when xenstore is lost and nobody can be told.
    await this.#guarded(() => this.#leave());
    this.#retryTimer?.cancel();
  }

  async #run(): Promise<void> {
    await this.#guarded(() => this.#look());
    if (this.#pace.tryTake()) return;
    await sleep(this.#options.runtime, RUN_PAUSE_MS, this.#stopping.signal).catch(() => {});
  }

  /** Whatever goes wrong in `step` is this device's trouble alone. */
  async #guarded(step: () => Promise<void>): Promise<void> {
    try {
      await step();
    } catch (error) {
      try {
        await this.#giveUp(error);
      } catch (second) {
        this.#report(second);
      }
    }
  }

  async #look(): Promise<void> {
    const own = await this.#nodes.read();
    if (own === undefined) return this.#forget();
    if (!this.#atHome(own)) {
      await this.#withdraw(own);
      throw this.#misplaced(own);
    }
    const served = own.online && (await this.#nodes.frontendExists(own.frontendPath));
    if (!served) return this.#withdraw(own);
    const attachment = await this.#attach(own);
    const before = this.#frontend;
    this.#frontend = parseState(await attachment.readState());
    if (own.state !== this.#shown) await this.#takeOver(own.state);
    if (attachment.failure) await this.#giveUp(attachment.failure);
    if (attachment.connected && (await this.#restarted(attachment, before))) {
      attachment.log.info('the frontend has published anew');
      await this.#disconnect();
    }
    await this.#fulfil(attachment, before);
  }

  /** Does what the frontend's state asks for. */
  async #fulfil(attachment: Attachment, before: XenbusState): Promise<void> {
    const { connected } = attachment;
    const resumable = this.#options.driver.resumable ?? false;
    const wish = wishOf(this.#frontend, { connected, resumable });
    if (wish === 'serve' && connected) return;
    const pausing = this.#options.runtime.nowMs() < this.#retryAtMs;
    if (wish === 'rest' || pausing) return this.#rest();
    await this.#disconnect();
    if (!this.#announced) {
      await this.#options.driver.announce(attachment);
      this.#announced = true;
    }
    const arrived =
      this.#frontend === XenbusStateInitialising && before !== XenbusStateInitialising;
    if (arrived || !this.#invited) this.#shown = undefined;
    await this.#show(XenbusStateInitWait);
    this.#invited = true;
    if (wish === 'serve') await this.#connect(attachment);
  }

  async #connect(attachment: Attachment): Promise<void> {
    try {
      await attachment.connect(this.#frontend);
    } catch (error) {
      if (!(error instanceof FrontendMovedOn)) throw error;
      await attachment.disconnect();
      this.kick();
      return;
    }
    this.#connectedAtMs = this.#options.runtime.nowMs();
    await this.#show(XenbusStateConnected);
    attachment.log.info('connected');
  }

  /**
   * Whether the frontend has begun a new life that we have not seen the beginning of: it went back to
   * Initialised (resume from suspend), or it published other references or ports.
   */
  async #restarted(attachment: Attachment, before: XenbusState): Promise<boolean> {
    if (before === XenbusStateConnected && this.#frontend === XenbusStateInitialised) return true;
    return attachment.publishedAnew();
  }

  async #attach({ frontendPath }: OwnNodes): Promise<Attachment> {
    if (this.#attachment && frontendPath === this.#frontendPath) return this.#attachment;
    await this.#leave();
    const { runtime, guests, address, driver } = this.#options;
    const stay = await guests.enter(address.domid);
    this.#attachment = await Attachment.enter({
      runtime,
      nodes: this.#nodes,
      address,
      frontendPath,
      driver,
      stay,
      onChange: () => this.kick(),
      onStrayError: (error) => this.#report(error),
    });
    this.#frontendPath = frontendPath;
    return this.#attachment;
  }

  /** Whether the frontend is where its guest's own nodes are, and nobody else's (XSA-175). */
  #atHome({ frontendPath }: OwnNodes): boolean {
    return frontendPath.startsWith(`/local/domain/${this.#options.address.domid}/`);
  }

  #misplaced({ frontendPath }: OwnNodes): SysError {
    return new SysError({
      call: 'xenstore',
      errnoName: 'EINVAL',
      context: `${this.#nodes.path}/frontend is ${JSON.stringify(frontendPath)}`,
      remedy: `the toolstack must name a path below /local/domain/${this.#options.address.domid}/`,
    });
  }

  /** Somebody else wrote our state: a backend before us, or the toolstack. Its promises end here. */
  async #takeOver(state: XenbusState): Promise<void> {
    this.#announced = false;
    this.#invited = false;
    this.#shown = state;
    await this.#disconnect();
  }

  /** No connection, and Closed shown: nothing is expected of us until somebody moves. */
  async #rest(): Promise<void> {
    await this.#disconnect();
    await this.#show(XenbusStateClosed);
  }

  /** The toolstack is removing the device, or its guest is gone: give everything back, and say so. */
  async #withdraw({ state }: OwnNodes): Promise<void> {
    this.#shown = state;
    await this.#rest();
    await this.#leave();
  }

  async #forget(): Promise<void> {
    this.#shown = undefined;
    await this.#leave();
    if (this.#lastError) await this.#nodes.removeError();
    this.#retryTimer?.cancel();
    void this.#task.stop();
    this.#options.onGone(this.#task.wanted);
  }

  async #leave(): Promise<void> {
    const attachment = this.#attachment;
    this.#attachment = undefined;
    this.#frontend = XenbusStateUnknown;
    this.#announced = false;
    this.#invited = false;
    await attachment?.leave();
  }

  /** Ends the connection if there is one, and the promises of the state that is shown. */
  async #disconnect(): Promise<void> {
    for (const state of goodbye(this.#shown ?? 0)) {
      if (state === XenbusStateClosed) await this.#release();
      await this.#show(state);
    }
    await this.#release();
  }

  async #release(): Promise<void> {
    const attachment = this.#attachment;
    if (!attachment?.connected) return;
    const nowMs = this.#options.runtime.nowMs();
    if (nowMs - (this.#connectedAtMs ?? nowMs) > STABLE_MS) this.#failuresInARow = 0;
    this.#connectedAtMs = undefined;
    await attachment.disconnect();
    attachment.log.info('disconnected');
  }

  async #show(state: XenbusState): Promise<void> {
    if (state === this.#shown) return;
    await this.#nodes.writeKey('state', String(state));
    this.#shown = state;
  }

  /** Says why, ends the connection, and sets when the frontend may try again. */
  async #giveUp(thrown: unknown): Promise<void> {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    this.#restarts += 1;
    this.#report(error);
    try {
      await this.#rest();
    } finally {
      await this.#release();
      this.#pause();
    }
    await this.#nodes.writeError(error).catch((failure: unknown) => {
      this.#log.warn({ reason: messageOf(failure) }, 'the error node cannot be written');
    });
  }

  #pause(): void {
    const { runtime } = this.#options;
    const delayMs = Math.min(RETRY_FIRST_MS * 2 ** this.#failuresInARow, RETRY_MAX_MS);
    this.#failuresInARow += 1;
    this.#retryAtMs = runtime.nowMs() + delayMs;
    this.#retryTimer?.cancel();
    this.#retryTimer = runtime.after(delayMs, () => this.kick());
  }

  #report(thrown: unknown): void {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    this.#lastError = error;
    const violation = violationReason(error);
    if (violation) this.#attachment?.guest.countRefusal(violation);
    if (!this.#failureLines.tryTake()) return;
    if (violation || error instanceof SysError)
      this.#log.warn({ reason: error.message }, 'device given up');
    else this.#log.error({ err: error }, 'device given up: a defect of ours');
  }
}
