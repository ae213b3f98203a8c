// The frontend's half of the xenbus handshake, as the driver of a guest in this process runs it
// (xen/io/xenbus.h, displif.h "state diagrams"; the same order of things as xen-drm-front).
//
// Like the backend's half it is a loop over observations. Invariants: what is published stays granted
// until the backend has let go of it or is given up on; the backend is not trusted with more than the
// strings that it writes.

import {
  XenbusStateClosed,
  XenbusStateClosing,
  XenbusStateConnected,
  XenbusStateInitialised,
  XenbusStateInitialising,
  XenbusStateInitWait,
  XenbusStateReconfigured,
  XenbusStateReconfiguring,
  XenbusStateUnknown,
} from '../../abi/xenbus.ts';
import { messageOf, SysError } from '../../runtime/errors.ts';
import { type Logger, type Runtime, withTimeout } from '../../runtime/runtime.ts';
import { Scope } from '../../runtime/scope.ts';
import type { Domain } from '../domain.ts';
import type { DomId } from '../ids.ts';
import { distrust, type Untrusted } from '../untrusted.ts';
import { parseDomId, required } from './parse.ts';
import { readPeerNode } from './peer-node.ts';
import { SerialTask } from './serial-task.ts';
import { parseState, type XenbusState } from './states.ts';

/** How long a closing frontend waits for the backend to let go, in milliseconds; xen-drm-front's patience. */
const CLOSE_PATIENCE_MS = 1000;
/** Longest value of a backend's node that a driver gets to see, in characters. */
const BACKEND_VALUE_CHARS_MAX = 256;

/** What the backend's state means to a frontend. */
type Cue = 'publish' | 'work' | 'over' | 'wait';

const CUES: Readonly<Record<XenbusState, Cue>> = {
  [XenbusStateUnknown]: 'over',
  [XenbusStateInitialising]: 'over',
  [XenbusStateInitWait]: 'publish',
  [XenbusStateInitialised]: 'wait',
  [XenbusStateConnected]: 'work',
  [XenbusStateClosing]: 'wait',
  [XenbusStateClosed]: 'over',
  [XenbusStateReconfiguring]: 'wait',
  [XenbusStateReconfigured]: 'wait',
};

/** Backend states in which it may still have our pages mapped. */
const HOLDING = new Set<XenbusState>([
  XenbusStateInitialised,
  XenbusStateConnected,
  XenbusStateClosing,
  XenbusStateReconfiguring,
  XenbusStateReconfigured,
]);

/** A device class's driver in the guest. */
export interface FrontendDriver {
  /** Directory name below `device/`, as `vdispl`. */
  readonly type: string;
  /**
   * The backend waits. Shares pages and opens ports inside `scope`, whose closing is the disconnect.
   * @returns the nodes to publish, by key relative to the device's directory
   */
  publish(device: FrontendDevice, scope: Scope): Promise<Readonly<Record<string, string>>>;
  /** The backend has connected: the device works from now on until the scope closes. */
  onConnected(device: FrontendDevice, scope: Scope): void | Promise<void>;
  /** The device stopped for good: `reason` is what failed. Not called by `close`. */
  onFailed(reason: Error): void;
}

export interface FrontendDeviceOptions {
  readonly runtime: Runtime;
  /** The guest's own domain. */
  readonly domain: Domain;
  readonly driver: FrontendDriver;
  readonly devid: number;
}

export class FrontendDevice {
  readonly domain: Domain;
  readonly backendDomid: DomId;
  readonly path: string;
  readonly #runtime: Runtime;
  readonly #driver: FrontendDriver;
  readonly #backendPath: string;
  readonly #log: Logger;
  readonly #scope: Scope;
  readonly #task = new SerialTask(() => this.#look());
  #connection: Scope | undefined;
  #state: XenbusState = XenbusStateUnknown;
  #failure: Error | undefined;
  #closed: Promise<void> | undefined;
  /** Set while closing: to be called when the backend has nothing of ours any more. */
  #onLetGo: (() => void) | undefined;

  private constructor(
    { runtime, domain, driver }: FrontendDeviceOptions,
    { path, backendPath, backendDomid }: FrontendNodes,
  ) {
    this.#runtime = runtime;
    this.domain = domain;
    this.#driver = driver;
    this.path = path;
    this.#backendPath = backendPath;
    this.backendDomid = backendDomid;
    this.#log = runtime.log.child({ frontend: path });
    this.#scope = new Scope(`frontend-${driver.type}`);
  }

  /**
   * Starts the device that the toolstack made for us.
   * @throws ProtocolViolation when the toolstack's nodes are missing or malformed
   */
  static async open(options: FrontendDeviceOptions): Promise<FrontendDevice> {
    const device = new FrontendDevice(options, await readNodes(options));
    const { store } = options.domain;
    await device.#show(XenbusStateInitialising);
    const path = `${device.#backendPath}/state`;
    device.#scope.own(await store.watch(path, () => device.#task.request()));
    return device;
  }

  get state(): XenbusState {
    return this.#state;
  }

  /** A node of the backend's directory. */
  async readBackend(key: string): Promise<Untrusted<string> | undefined> {
    const value = await readPeerNode(this.domain.store, `${this.#backendPath}/${key}`);
    return value === undefined ? undefined : distrust(value.slice(0, BACKEND_VALUE_CHARS_MAX));
  }

  /** Gives the device up for good, because the backend broke the protocol or we cannot go on. */
  fail(error: Error): void {
    this.#failure ??= error;
    this.#task.request();
  }

  /** Tells the backend, waits (bounded) until it has let go of what we shared, and takes that back. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const letGo = new Promise<void>((resolve) => {
      this.#onLetGo = resolve;
    });
    this.#task.request();
    const onTimeout = () => new Error(`the backend held on for ${CLOSE_PATIENCE_MS} ms`);
    await withTimeout(this.#runtime, letGo, { timeoutMs: CLOSE_PATIENCE_MS, onTimeout }).catch(
      (error: unknown) => this.#log.warn({ reason: messageOf(error) }, 'closing anyway'),
    );
    await this.#task.stop();
    await this.#endConnection();
    await this.#scope.close();
    await this.#show(XenbusStateClosed);
  }

  async #look(): Promise<void> {
    try {
      const state = await this.readBackend('state');
      const backend = parseState(state);
      if (this.#onLetGo) {
        if (this.#state !== XenbusStateClosing) await this.#show(XenbusStateClosing);
        if (!HOLDING.has(backend)) this.#onLetGo();
        return;
      }
      if (this.#failure) throw this.#failure;
      if (state === undefined && (await this.#ownState()) === undefined) throw takenAway(this.path);
      await this.#follow(backend);
    } catch (error) {
      this.#giveUp(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #giveUp(reason: Error): void {
    if (this.#closed) return;
    this.#log.error({ err: reason }, 'frontend given up');
    this.close()
      .catch((error: unknown) => {
        this.#log.error({ reason: messageOf(error) }, 'closing the frontend failed');
      })
      .finally(() => this.#driver.onFailed(reason));
  }

  async #follow(backend: XenbusState): Promise<void> {
    const cue = CUES[backend];
    const connected = this.#state === XenbusStateConnected;
    if ((cue === 'over' || cue === 'publish') && connected) await this.#startAnew();
    if (cue === 'publish' && (await this.#isReplaced())) await this.#startAnew();
    if (cue === 'publish' && this.#state === XenbusStateInitialising) await this.#publish();
    if (cue === 'work' && this.#state === XenbusStateInitialised) {
      await this.#driver.onConnected(this, this.#connection!);
      await this.#show(XenbusStateConnected);
    }
  }

  /** Whether the toolstack took the device away after we published, and gave it back: nothing that we wrote is there. */
  async #isReplaced(): Promise<boolean> {
    if (this.#state !== XenbusStateInitialised) return false;
    return parseState(await this.#ownState()) !== this.#state;
  }

  /** What our own directory says, which is the toolstack's to take away; undefined when it is gone. */
  async #ownState(): Promise<Untrusted<string> | undefined> {
    const value = await this.domain.store.read(`${this.path}/state`);
    return value === undefined ? undefined : distrust(value);
  }

  async #publish(): Promise<void> {
    this.#connection = this.#scope.child('connection');
    const nodes = await this.#driver.publish(this, this.#connection);
    await this.domain.store.transaction(async (access) => {
      for (const [key, value] of Object.entries(nodes)) {
        await access.write(`${this.path}/${key}`, value);
      }
    });
    await this.#show(XenbusStateInitialised);
  }

  /** The backend went away: it is not to touch what it had, until we are ready again. */
  async #startAnew(): Promise<void> {
    await this.#show(XenbusStateReconfiguring);
    await this.#endConnection();
    await this.#show(XenbusStateInitialising);
  }

  async #endConnection(): Promise<void> {
    const connection = this.#connection;
    this.#connection = undefined;
    await connection?.close();
  }

  async #show(state: XenbusState): Promise<void> {
    await this.domain.store.write(`${this.path}/state`, String(state));
    this.#state = state;
  }
}

function takenAway(path: string): SysError {
  const context = `the toolstack has taken ${path} away`;
  return new SysError({ call: 'xenstore', errnoName: 'ENODEV', context });
}

interface FrontendNodes {
  readonly path: string;
  readonly backendPath: string;
  readonly backendDomid: DomId;
}

/** What the toolstack wrote for this device into the guest's directory. */
async function readNodes({ domain, driver, devid }: FrontendDeviceOptions): Promise<FrontendNodes> {
  const path = `/local/domain/${domain.domid}/device/${driver.type}/${devid}`;
  const backendPath = required(await domain.store.read(`${path}/backend`), `${path}/backend`);
  const idNode = `${path}/backend-id`;
  const id = required(await domain.store.read(idNode), idNode);
  return { path, backendPath, backendDomid: parseDomId(distrust(id), idNode) };
}
