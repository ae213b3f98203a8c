// A device's directory in our own part of xenstore, `backend/<type>/<domid>/<devid>`, and its error node.
//
// Invariant: nothing here brings a removed directory back. The toolstack removes a device while we may be
// about to write into it, so every write looks first, in one transaction, whether the device is still there.

import { XEN_ERRNO } from '../../abi/errno.ts';
import { messageOf, ProtocolViolation, SysError } from '../../runtime/errors.ts';
import type { DomId } from '../ids.ts';
import { distrust } from '../untrusted.ts';
import type { Xenstore } from '../xenstore.ts';
import { readPeerNode } from './peer-node.ts';
import { parseState, type XenbusState } from './states.ts';

/** Longest reason in an error node, in characters: nodes hold 2048 bytes by default. */
const ERROR_CHARS_MAX = 512;

export interface DeviceAddress {
  /** Whose backend this is: ourselves. */
  readonly backendDomid: DomId;
  readonly type: string;
  readonly domid: DomId;
  readonly devid: number;
}

/** What the toolstack said about the device. */
export interface OwnNodes {
  readonly frontendPath: string;
  /** False when the device is being removed for good. */
  readonly online: boolean;
  readonly state: XenbusState;
}

function errorNumber(error: Error): number {
  if (error instanceof ProtocolViolation) return XEN_ERRNO[error.errnoName];
  const name = error instanceof SysError ? `XEN_${error.errnoName}` : '';
  return Object.hasOwn(XEN_ERRNO, name)
    ? XEN_ERRNO[name as keyof typeof XEN_ERRNO]
    : XEN_ERRNO.XEN_EIO;
}

export class DeviceNodes {
  readonly path: string;
  readonly #store: Xenstore;
  readonly #address: DeviceAddress;

  constructor(store: Xenstore, address: DeviceAddress) {
    const { backendDomid, type, domid, devid } = address;
    this.#store = store;
    this.#address = address;
    this.path = `/local/domain/${backendDomid}/backend/${type}/${domid}/${devid}`;
  }

  /** Where Linux's xenbus puts the reasons of a backend's failures: below our home, not in the device. */
  get errorPath(): string {
    const { backendDomid, type, domid, devid } = this.#address;
    return `/local/domain/${backendDomid}/error/backend/${type}/${domid}/${devid}/error`;
  }

  /** Undefined when the device is gone (or not written yet). */
  async read(): Promise<OwnNodes | undefined> {
    const keys = ['frontend', 'state', 'online'];
    const [frontendPath, state, online] = await Promise.all(keys.map((key) => this.readKey(key)));
    if (frontendPath === undefined || state === undefined) return undefined;
    return { frontendPath, online: online !== '0', state: parseState(distrust(state)) };
  }

  readKey(key: string): Promise<string | undefined> {
    return this.#store.read(`${this.path}/${key}`);
  }

  /** Writes a node of the device; does nothing when the device is gone. */
  writeKey(key: string, value: string): Promise<void> {
    return this.#store.transaction(async (access) => {
      if ((await access.read(`${this.path}/state`)) === undefined) return;
      await access.write(`${this.path}/${key}`, value);
    });
  }

  /** Publishes the reason of a failure as "NUMBER TEXT", readable by the guest that it is about. */
  async writeError(error: Error): Promise<void> {
    const text = `${errorNumber(error)} ${messageOf(error)}`.slice(0, ERROR_CHARS_MAX);
    const { backendDomid, domid } = this.#address;
    await this.#store.write(this.errorPath, text);
    await this.#store.setPermissions(this.errorPath, [
      { domid: backendDomid, read: false, write: false },
      { domid, read: true, write: false },
    ]);
  }

  removeError(): Promise<void> {
    return this.#store.remove(this.errorPath.slice(0, -'/error'.length));
  }

  /** Whether the frontend still has its directory: with its domain it goes, as the domain owns it. */
  async frontendExists(frontendPath: string): Promise<boolean> {
    return (await readPeerNode(this.#store, frontendPath)) !== undefined;
  }
}
