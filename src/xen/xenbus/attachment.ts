// A device while it belongs to a guest: what its driver sees (BackendDevice), the watch on the frontend's
// state, and the connections, of which there is at most one.
//
// Invariants: everything that a connection acquired lives in its scope, and the scope's closing is the
// disconnect; everything else that the attachment holds is gone when `leave` has resolved.

import assert from 'node:assert/strict';
import { XenbusStateConnected, XenbusStateInitialised, xenbusStateName } from '../../abi/xenbus.ts';
import { ProtocolViolation } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/runtime.ts';
import type { Scope } from '../../runtime/scope.ts';
import { distrust, type Untrusted } from '../untrusted.ts';
import type { DeviceAddress, DeviceNodes } from './device-nodes.ts';
import type { BackendDevice, BackendDriver, GuestContext } from './driver.ts';
import type { GuestStay } from './guests.ts';
import { readPeerNode } from './peer-node.ts';
import { parseState, type XenbusState } from './states.ts';

/** Longest value of a frontend's node that a driver gets to see, in characters. */
const FRONTEND_VALUE_CHARS_MAX = 256;
/** Most nodes that one connection can depend on: 256 connectors of a display with 6 each, and some. */
const PUBLISHED_NODES_MAX = 2048;

/** States of a frontend in which what it has published is there. */
const STANDING_BY: ReadonlySet<XenbusState> = new Set([
  XenbusStateInitialised,
  XenbusStateConnected,
]);

class Connection {
  readonly scope: Scope;
  /** What the driver read of the frontend's directory while connecting, by key. */
  readonly published = new Map<string, string | undefined>();
  established = false;
  failure: Error | undefined;

  constructor(scope: Scope) {
    this.scope = scope;
  }
}

export interface AttachmentOptions {
  readonly nodes: DeviceNodes;
  readonly address: DeviceAddress;
  readonly frontendPath: string;
  readonly driver: BackendDriver;
  readonly stay: GuestStay;
  /** Called whenever something may have happened that the state machine must look at. */
  readonly onChange: () => void;
}

export class Attachment implements BackendDevice {
  readonly guest: GuestContext;
  readonly type: string;
  readonly devid: number;
  readonly backendPath: string;
  readonly frontendPath: string;
  readonly log: Logger;
  readonly scope: Scope;
  readonly #nodes: DeviceNodes;
  readonly #driver: BackendDriver;
  readonly #stay: GuestStay;
  readonly #onChange: () => void;
  #connection: Connection | undefined;
  #connections = 0;

  private constructor(options: AttachmentOptions) {
    const { nodes, address, frontendPath, driver, stay, onChange } = options;
    this.guest = stay.guest;
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
  }

  /** Takes over `stay`, also when it throws, and begins to watch the frontend. */
  static async enter(options: AttachmentOptions): Promise<Attachment> {
    const attachment = new Attachment(options);
    try {
      const { domain } = attachment.guest;
      const path = `${attachment.frontendPath}/state`;
      attachment.scope.own(await domain.store.watch(path, options.onChange));
      return attachment;
    } catch (error) {
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

  async confirmFrontend(): Promise<void> {
    const state = parseState(await this.readState());
    if (STANDING_BY.has(state) && !(await this.publishedAnew())) return;
    const detail = `the frontend went to ${xenbusStateName(state)} while it was being connected`;
    throw new ProtocolViolation('withdrawn', 'XEN_EAGAIN', detail);
  }

  /** The frontend's `state`, whatever it holds. */
  async readState(): Promise<Untrusted<string> | undefined> {
    const value = await this.#readPublished('state');
    return value === undefined ? undefined : distrust(value);
  }

  fail(error: Error): void {
    const connection = this.#connection;
    if (!connection || connection.failure || connection.scope.closing) return;
    connection.failure = error;
    this.#onChange();
  }

  /** Lets the driver connect. Rejects with its failure; `disconnect` is due then too. */
  async connect(): Promise<void> {
    assert(!this.#connection, 'connected already');
    this.#connections += 1;
    const connection = new Connection(this.scope.child(`connection-${this.#connections}`));
    this.#connection = connection;
    await this.#driver.connect(this, connection.scope);
    if (connection.failure) throw connection.failure;
    connection.established = true;
  }

  /** Whether what the connection was built from has been published anew in the meantime. */
  async publishedAnew(): Promise<boolean> {
    const published = [...(this.#connection?.published ?? [])];
    const now = await Promise.all(published.map(([key]) => this.#readPublished(key)));
    return published.some(([, value], index) => value !== now[index]);
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
