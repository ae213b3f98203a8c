// All devices of one type that the toolstack has given to this backend: `backend/<type>/<domid>/<devid>`
// below our home in xenstore. Finds them, keeps a ServedDevice for each, and tells it when to look again.
//
// Invariant: a directory that the toolstack made is served once, from its appearance until it is removed;
// also those that a backend before us left behind in any state.

import { messageOf } from '../../runtime/errors.ts';
import type { Logger, Runtime, Timer } from '../../runtime/runtime.ts';
import { Scope } from '../../runtime/scope.ts';
import type { Domain } from '../domain.ts';
import { distrust } from '../untrusted.ts';
import { type BackendDriver, DEVID_MAX } from './driver.ts';
import type { Guests } from './guests.ts';
import { parseDomId, parseU32 } from './parse.ts';
import { SerialTask } from './serial-task.ts';
import { type DeviceStatus, ServedDevice } from './served-device.ts';

/** Most devices of one type; a host has at most some hundreds of domains. */
const DEVICES_MAX = 4096;
/** Pause before the devices are listed again when that failed: nothing else would make us look. */
const SCAN_RETRY_MS = 1000;
const DEVIDS = { min: 0, max: DEVID_MAX };
/** Keys of a device's directory that others write and that decide anything. */
const DECISIVE_KEYS = new Set(['frontend', 'state', 'online']);

export interface BackendBusOptions {
  readonly runtime: Runtime;
  /** Our own domain; devices use the guest's accounted view of it instead. */
  readonly domain: Domain;
  readonly driver: BackendDriver;
  /** Shared between the buses of several types. */
  readonly guests: Guests;
}

export class BackendBus implements AsyncDisposable {
  readonly #options: BackendBusOptions;
  readonly #log: Logger;
  readonly #root: string;
  readonly #scope: Scope;
  readonly #devices = new Map<string, ServedDevice>();
  readonly #scan = new SerialTask(() => this.#scanAll());
  #scanRetry: Timer | undefined;

  private constructor(options: BackendBusOptions) {
    const { runtime, domain, driver } = options;
    this.#options = options;
    this.#log = runtime.log.child({ bus: driver.type });
    this.#root = `/local/domain/${domain.domid}/backend/${driver.type}`;
    this.#scope = new Scope(`bus-${driver.type}`);
  }

  /** Begins to serve what is there and what will come. @throws SysError when xenstore refuses the watches */
  static async open(options: BackendBusOptions): Promise<BackendBus> {
    const bus = new BackendBus(options);
    const { store } = options.domain;
    try {
      bus.#scope.own(await store.watch(bus.#root, (path) => bus.#onChange(path)));
      // Which domain went is not said: those whose nodes went with it are found by looking at all.
      bus.#scope.own(await store.watch('@releaseDomain', () => bus.#kickAll()));
    } catch (error) {
      await bus.#scope.close();
      throw error;
    }
    return bus;
  }

  /** Every device that exists now. */
  get devices(): readonly DeviceStatus[] {
    return [...this.#devices.values()].map((device) => device.status);
  }

  /** Disconnects every device in good order, so that the next backend can take up; idempotent. */
  async close(): Promise<void> {
    try {
      await this.#scope.close();
    } finally {
      await this.#scan.stop();
      this.#scanRetry?.cancel();
      await Promise.all([...this.#devices.values()].map((device) => device.close()));
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** `path` is the root, a device, or something above or below it, written, made or removed. */
  #onChange(path: string): void {
    const [domid, devid, key] = path.slice(this.#root.length + 1).split('/');
    if (domid === undefined || devid === undefined) this.#scan.request();
    else if (key === undefined || DECISIVE_KEYS.has(key)) this.#device(domid, devid)?.kick();
  }

  #kickAll(): void {
    for (const device of this.#devices.values()) device.kick();
  }

  async #scanAll(): Promise<void> {
    const { store } = this.#options.domain;
    const found: (readonly [domid: string, devid: string])[] = [];
    try {
      for (const domid of (await store.directory(this.#root)) ?? []) {
        for (const devid of (await store.directory(`${this.#root}/${domid}`)) ?? []) {
          found.push([domid, devid]);
        }
      }
    } catch (error) {
      this.#log.error({ reason: messageOf(error) }, `cannot list the devices in ${this.#root}`);
      this.#scanRetry?.cancel();
      this.#scanRetry = this.#options.runtime.after(SCAN_RETRY_MS, () => this.#scan.request());
    }
    // Not before: one that is being forgotten while we list would be taken for the one that is there.
    for (const [domid, devid] of found) this.#device(domid, devid);
    this.#kickAll();
  }

  /** The device of these directory names; undefined when they name none or we are closing. */
  #device(domidName: string, devidName: string): ServedDevice | undefined {
    const name = `${domidName}/${devidName}`;
    const known = this.#devices.get(name);
    if (known || this.#scope.closing) return known;
    try {
      if (this.#devices.size >= DEVICES_MAX) throw new Error(`more than ${DEVICES_MAX} devices`);
      const domid = parseDomId(distrust(domidName), 'domid');
      return this.#add(name, { domid, devid: parseU32(distrust(devidName), 'devid', DEVIDS) });
    } catch (error) {
      this.#log.warn({ reason: messageOf(error) }, `not a device: ${this.#root}/${name}`);
      return undefined;
    }
  }

  #add(name: string, { domid, devid }: Pick<DeviceStatus, 'domid' | 'devid'>): ServedDevice {
    const { runtime, domain, driver, guests } = this.#options;
    const device = new ServedDevice({
      runtime,
      store: domain.store,
      driver,
      guests,
      address: { backendDomid: domain.domid, type: driver.type, domid, devid },
      log: this.#log.child({ domid, devid }),
      onGone: (again) => {
        this.#devices.delete(name);
        // Unless something was written meanwhile, what there is of it is no device: a toolstack's half-written directory.
        if (again) this.#device(`${domid}`, `${devid}`)?.kick();
      },
    });
    this.#devices.set(name, device);
    return device;
  }
}
