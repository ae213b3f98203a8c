// A device while it belongs to a guest: what its driver sees (BackendDevice), the watch on the frontend's
// state, and the connections, of which there is at most one.
//
// Invariants: everything that a connection acquired lives in its scope, and the scope's closing is the
// disconnect; everything else that the attachment holds is gone when `leave` has resolved; whatever the driver's own
// code throws, wherever it was called from, ends the connection and goes no further.

import assert from 'node:assert/strict';
import { Confinement, type Work } from '../../runtime/confinement.ts';
import { ProtocolViolation } from '../../runtime/errors.ts';
import type { Logger, Runtime } from '../../runtime/runtime.ts';
import type { Scope } from '../../runtime/scope.ts';
import { distrust, type Untrusted } from '../untrusted.ts';
import { confinedGuest } from './confined-guest.ts';
import type { DeviceAddress, DeviceNodes } from './device-nodes.ts';
import type { BackendDevice, BackendDriver, GuestContext } from './driver.ts';
import type { GuestStay } from './guests.ts';
import { PacedWatch } from './paced-watch.ts';
import { readPeerNode } from './peer-node.ts';
import { parseState, type XenbusState } from './states.ts';

/** Longest value of a frontend's node that a driver gets to see, in characters. */
const FRONTEND_VALUE_CHARS_MAX = 256;
/** Most nodes that one connection can depend on: 256 connectors of a display with 6 each, and some. */
const PUBLISHED_NODES_MAX = 2048;

/** The frontend has begun something new while it was being connected: there is nothing wrong, and nothing to serve yet. */
export class FrontendMovedOn extends Error {
  override readonly name = 'FrontendMovedOn';
}

class Connection {
  readonly scope: Scope;
  /** What the frontend showed when we began to connect. */
  readonly frontend: XenbusState;
  /** What the driver read of the frontend's directory while connecting, by key. */
  readonly published = new Map<string, string | undefined>();
  established = false;
  failure: Error | undefined;

  constructor(scope: Scope, frontend: XenbusState) {
    this.scope = scope;
    this.frontend = frontend;
  }
}

export interface AttachmentOptions {
  readonly runtime: Runtime;
  readonly nodes: DeviceNodes;
  readonly address: DeviceAddress;
  readonly frontendPath: string;
  readonly driver: BackendDriver;
  readonly stay: GuestStay;
  /** Called whenever something may have happened that the state machine must look at. */
  readonly onChange: () => void;
  /** Something was thrown that ends no connection, as there is none (any more). */
  readonly onStrayError: (error: Error) => void;
}

export class Attachment implements BackendDevice {
  readonly guest: GuestContext;
  readonly type: string;
  readonly devid: number;
  readonly backendPath: string;
  readonly frontendPath: string;
  readonly log: Logger;
  readonly scope: Scope;
  readonly runtime: Runtime;
  readonly #confinement: Confinement;
  readonly #nodes: DeviceNodes;
  readonly #driver: BackendDriver;
  readonly #stay: GuestStay;
  readonly #onChange: () => void;
  readonly #onStrayError: (error: Error) => void;
  #connection: Connection | undefined;
  #connections = 0;

  private constructor(options: AttachmentOptions) {
    const { runtime, nodes, address, frontendPath, driver, stay, onChange } = options;
    this.#confinement = new Confinement(runtime, (error) => this.#broke(error));
    this.runtime = this.#confinement.runtime;
    this.guest = confinedGuest(stay.guest, this.#confinement);
    this.type = address.type;
    this.devid = address.devid;
    this.backendPath = nodes.path;
    this.frontendPath = frontendPath;
    this.log = stay.guest.log.child({ device: `${address.type}/${address.devid}` });
    this.#nodes = nodes;
    this.#driver = driver;
    this.#stay = stay;
    this.scope = stay.guest.scope.child(`${address.type}-${address.devid}`);
    this.#onChange = onChange;
    this.#onStrayError = options.onStrayError;
  }

  /** Takes over `stay`, also when it throws, and begins to watch the frontend. */
  static async enter(options: AttachmentOptions): Promise<Attachment> {
    const attachment = new Attachment(options);
    try {
      const { runtime, onChange } = options;
      const { guest } = attachment;
      const path = `${attachment.frontendPath}/state`;
      attachment.scope.own(await PacedWatch.open({ runtime, guest, path, onChange }));
      return attachment;
    } catch (error) {
      if (error instanceof ProtocolViolation) attachment.guest.countRefusal(error.reason);
      await attachment.leave();
      throw error;
    }
  }

  get connected(): boolean {
    return this.#connection !== undefined;
  }

  /** Why the driver gave up on the connection, if it did. */
  get failure(): Error | undefined {
    return this.#connection?.failure;
  }

  readBackend(key: string): Promise<string | undefined> {
    return this.#nodes.readKey(key);
  }

  writeBackend(key: string, value: string): Promise<void> {
    return this.#nodes.writeKey(key, value);
  }

  async readFrontend(key: string): Promise<Untrusted<string> | undefined> {
    const connection = this.#connection;
    const value = await this.#readPublished(key);
    if (connection && !connection.established) {
      assert(connection.published.size < PUBLISHED_NODES_MAX, 'a driver reads without bound');
      connection.published.set(key, value);
    }
    if (value !== undefined && value.length > FRONTEND_VALUE_CHARS_MAX) {
      const detail = `${key} has ${value.length} characters; ${FRONTEND_VALUE_CHARS_MAX} are allowed`;
      throw new ProtocolViolation('oversized-node', 'XEN_EINVAL', detail);
    }
    return value === undefined ? undefined : distrust(value);
  }

  /** The frontend's `state`, whatever it holds. */
  async readState(): Promise<Untrusted<string> | undefined> {
    const value = await this.#readPublished('state');
    return value === undefined ? undefined : distrust(value);
  }

  confined<A = void>(work: Work<A>): Work<A> {
    return this.#confinement.wrap(work);
  }

  fail(error: Error): void {
    this.#endBecauseOf(error);
  }

  #broke(error: Error): void {
    if (!this.#endBecauseOf(error)) this.#onStrayError(error);
  }

  /** Whether there was a connection to end. */
  #endBecauseOf(error: Error): boolean {
    const connection = this.#connection;
    if (!connection || connection.failure || connection.scope.closing) return false;
    connection.failure = error;
    this.#onChange();
    return true;
  }

  async confirmPublished(): Promise<void> {
    const connection = this.#connection;
    assert(connection && !connection.established, 'confirmed while nothing is being connected');
    const same = parseState(await this.readState()) === connection.frontend;
    if (!same || (await this.publishedAnew())) throw new FrontendMovedOn(this.frontendPath);
  }

  /** Lets the driver connect to the `frontend` in that state. Rejects with its failure; `disconnect` is due then too. */
  async connect(frontend: XenbusState): Promise<void> {
    assert(!this.#connection, 'connected already');
    this.#connections += 1;
    const scope = this.scope.child(`connection-${this.#connections}`);
    const connection = new Connection(scope, frontend);
    this.#connection = connection;
    await this.#driver.connect(this, connection.scope);
    if (connection.failure) throw connection.failure;
    connection.established = true;
  }

  /**
   * Whether what the connection was built from has been published anew in the meantime. Asks for one node after
   * the other: all guests' requests wait in one queue, and a device with many nodes has no more places there.
   */
  async publishedAnew(): Promise<boolean> {
    for (const [key, value] of this.#connection?.published ?? []) {
      if ((await this.#readPublished(key)) !== value) return true;
    }
    return false;
  }

  /** Releases everything that the connection holds. */
  async disconnect(): Promise<void> {
    const connection = this.#connection;
    this.#connection = undefined;
    await connection?.scope.close();
  }

  /** Releases everything, and leaves the guest; every step is tried, the first failure is thrown. */
  async leave(): Promise<void> {
    try {
      await this.scope.close();
    } finally {
      await this.#stay[Symbol.asyncDispose]();
    }
  }

  #readPublished(key: string): Promise<string | undefined> {
    return readPeerNode(this.guest.domain.store, `${this.frontendPath}/${key}`);
  }
}
