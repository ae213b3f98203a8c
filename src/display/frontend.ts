// A display frontend for guests in this process and for tests: what xen-drm-front does, without the DRM.
// Each time the backend connects, its user gets a new display; that one, its buffers and framebuffers are
// over when the connection is.

import {
  displSring,
  XENDISPL_DRIVER_NAME,
  XENDISPL_FIELD_BE_ALLOC,
  XENDISPL_FIELD_BE_VERSIONS,
  XENDISPL_FIELD_EVT_CHANNEL,
  XENDISPL_FIELD_EVT_RING_REF,
  XENDISPL_FIELD_FE_VERSION,
  XENDISPL_FIELD_REQ_CHANNEL,
  XENDISPL_FIELD_REQ_RING_REF,
  XENDISPL_FIELD_RESOLUTION,
} from '../abi/displif.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { Scope } from '../runtime/scope.ts';
import type { Domain } from '../xen/domain.ts';
import { initRing } from '../xen/ring.ts';
import { distrust } from '../xen/untrusted.ts';
import { FrontendDevice, type FrontendDriver } from '../xen/xenbus/frontend-device.ts';
import { parseResolution, parseVersions } from '../xen/xenbus/parse.ts';
import { patientDomain } from '../zcopy/patient-domain.ts';
import { CONNECTORS_MAX } from './connector-number.ts';
import { FrontendConnector } from './frontend-connector.ts';
import { DIMENSION_MAX } from './geometry.ts';
import { GuestDisplay } from './guest-display.ts';

const VERSION = 1;

export interface DisplayFrontendOptions {
  readonly runtime: Runtime;
  /** The guest's own domain. */
  readonly domain: Domain;
  /** 0 unless the guest has several displays. */
  readonly devid?: number;
  readonly onConnected: (display: GuestDisplay) => void;
  /** The display of the last `onConnected` is over; another one may follow. */
  readonly onDisconnected?: () => void;
  /** The device stopped for good. */
  readonly onFailed?: (reason: Error) => void;
}

export class DisplayFrontend implements AsyncDisposable {
  readonly #device: FrontendDevice;

  private constructor(device: FrontendDevice) {
    this.#device = device;
  }

  /** Starts the device that the toolstack made for this guest. @throws ProtocolViolation, SysError */
  static async open(options: DisplayFrontendOptions): Promise<DisplayFrontend> {
    const { runtime, devid = 0 } = options;
    // A buffer of the backend's is given back only when it is unmapped here.
    const domain = patientDomain(runtime, options.domain);
    const driver = new DisplayDriver(options);
    return new DisplayFrontend(await FrontendDevice.open({ runtime, domain, driver, devid }));
  }

  /** Takes leave of the backend and takes back what it had. */
  close(): Promise<void> {
    return this.#device.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

class DisplayDriver implements FrontendDriver {
  readonly type = XENDISPL_DRIVER_NAME;
  readonly #options: DisplayFrontendOptions;
  #connectors: FrontendConnector[] = [];
  #backendAllocates = false;

  constructor(options: DisplayFrontendOptions) {
    this.#options = options;
  }

  async publish(device: FrontendDevice, scope: Scope): Promise<Record<string, string>> {
    await checkVersions(device);
    const beAlloc = await device.domain.store.read(`${device.path}/${XENDISPL_FIELD_BE_ALLOC}`);
    this.#backendAllocates = beAlloc === '1';
    const nodes: Record<string, string> = { [XENDISPL_FIELD_FE_VERSION]: String(VERSION) };
    this.#connectors = [];
    for (let index = 0; index < CONNECTORS_MAX; index++) {
      const node = `${index}/${XENDISPL_FIELD_RESOLUTION}`;
      const value = await device.domain.store.read(`${device.path}/${node}`);
      if (value === undefined) break;
      const size = parseResolution(distrust(value), node, DIMENSION_MAX);
      Object.assign(nodes, await this.#share({ device, scope, index, ...size }));
    }
    if (this.#connectors.length > 0) return nodes;
    throw new ProtocolViolation('no-connector', 'XEN_ENOENT', 'no connector is configured');
  }

  onConnected({ domain, backendDomid }: FrontendDevice, scope: Scope): void {
    const { onConnected, onDisconnected } = this.#options;
    const connectors = this.#connectors;
    const backendAllocates = this.#backendAllocates;
    const parts = { domain, backendDomid, connectors, scope, backendAllocates };
    const display = new GuestDisplay(parts);
    if (onDisconnected) scope.defer(onDisconnected);
    onConnected(display);
  }

  onFailed(reason: Error): void {
    this.#options.onFailed?.(reason);
  }

  /** Makes a connector's rings and channels. @returns its nodes */
  async #share({ device, scope, index, width, height }: NewConnector) {
    const { domain, backendDomid: domid } = device;
    const pages = scope.own(await domain.grants.share({ domid, pages: 2, writable: true }));
    const controlPage = pages.bytes.subarray(0, PAGE_SIZE);
    const eventPage = pages.bytes.subarray(PAGE_SIZE);
    initRing(controlPage, displSring);
    const channel = async (handler: () => void) =>
      scope.own(await domain.events.allocUnbound({ remote: domid, handler }));
    // Whoever goes by what an earlier frontend published may signal a port before we know that it is ours.
    let connector: FrontendConnector | undefined;
    const control = await channel(() => connector?.onResponses());
    const events = await channel(() => connector?.onEvents());
    const opened = new FrontendConnector({
      runtime: this.#options.runtime,
      index,
      width,
      height,
      controlPage,
      eventPage,
      notify: () => control.notify(),
      fail: (error) => device.fail(error),
    });
    connector = opened;
    scope.defer(() => opened.close());
    this.#connectors.push(opened);
    return {
      [`${index}/${XENDISPL_FIELD_REQ_RING_REF}`]: String(pages.refs[0]),
      [`${index}/${XENDISPL_FIELD_REQ_CHANNEL}`]: String(control.port),
      [`${index}/${XENDISPL_FIELD_EVT_RING_REF}`]: String(pages.refs[1]),
      [`${index}/${XENDISPL_FIELD_EVT_CHANNEL}`]: String(events.port),
    };
  }
}

interface NewConnector {
  readonly device: FrontendDevice;
  readonly scope: Scope;
  readonly index: number;
  readonly width: number;
  readonly height: number;
}

/** @throws ProtocolViolation `unsupported-version` (XEN_EOPNOTSUPP); no node at all means version 1 */
async function checkVersions(device: FrontendDevice): Promise<void> {
  const value = await device.readBackend(XENDISPL_FIELD_BE_VERSIONS);
  if (value === undefined) return;
  const versions = parseVersions(value, XENDISPL_FIELD_BE_VERSIONS);
  if (versions.includes(VERSION)) return;
  const detail = `the backend speaks ${versions.join(', ')}`;
  throw new ProtocolViolation('unsupported-version', 'XEN_EOPNOTSUPP', detail);
}
