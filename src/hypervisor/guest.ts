// One guest as the toolstack manages it: its life from outside, like the `xl` process that stays with a
// domain. Whatever stops it, its devices are closed, the domain is destroyed, and its nodes go.

import type { Runtime } from '../runtime/runtime.ts';
import type { DomId } from '../xen/ids.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import type { HostedDomain, ShutdownReason } from './hosted-domain.ts';
import type { Hypervisor } from './hypervisor.ts';
import { type DeviceSpec, removeDevices, removeHome, requestShutdown } from './toolstack.ts';

/** How a guest ended: by its own word, by a crash, or destroyed from outside. */
export type GuestEnd = ShutdownReason | 'destroyed';

export interface GuestOptions {
  readonly runtime: Runtime;
  readonly hypervisor: Hypervisor;
  /** Domain 0's connection. */
  readonly store: Xenstore;
  readonly domain: HostedDomain;
  readonly uuid: string;
  readonly devices: readonly DeviceSpec[];
}

/** Where a guest's code runs, other than in this thread. */
export interface GuestPlace {
  /** Resolves when the code has ended, or cannot reach the machine any more. */
  readonly ended: Promise<void>;
  /** Its views of the domain's memory are out of our reach: nothing is taken away before it has ended. */
  readonly hasOwnViews: boolean;
  /** The machine is switched off: the code is not given time to end by itself. */
  cutOff(): void;
}

export class Guest {
  readonly domid: DomId;
  readonly name: string;
  /** Resolves when the guest's domain is destroyed and its nodes are removed. */
  readonly gone: Promise<GuestEnd>;
  readonly #options: GuestOptions;
  readonly #onGone = withResolver<GuestEnd>();
  #place: GuestPlace | undefined;
  #built: Promise<void> = Promise.resolve();
  #destroyed: Promise<void> | undefined;

  constructor(options: GuestOptions) {
    this.#options = options;
    this.domid = options.domain.domid;
    this.name = options.domain.name;
    this.gone = this.#onGone.promise;
  }

  /** The guest is being built: what that makes is there to be taken away only when it is over. */
  isBuiltBy(building: Promise<void>): void {
    this.#built = building.catch(() => {});
  }

  /** The guest's code runs there; the guest is gone only when it has ended. */
  runsIn(place: GuestPlace): void {
    this.#place = place;
  }

  /** The machine is switched off: nobody waits for the guest's code to end by itself. */
  cutOff(): void {
    this.#place?.cutOff();
  }

  /** Asks the guest to stop by itself; `gone` tells when it has. */
  requestShutdown(reason: Exclude<ShutdownReason, 'crash'> = 'poweroff'): Promise<void> {
    return requestShutdown(this.#options.store, this.domid, reason);
  }

  /** Stops the guest this instant, wherever it is. */
  crash(): void {
    this.#options.hypervisor.shutdown(this.domid, 'crash');
  }

  /** Takes the guest away. Resolves when its domain is dead, or dying because somebody maps its pages. */
  destroy(): Promise<void> {
    this.#destroyed ??= this.#destroy();
    return this.#destroyed;
  }

  async #destroy(): Promise<void> {
    const { runtime, hypervisor, store, domain, uuid, devices } = this.#options;
    hypervisor.pause(this.domid);
    await this.#built;
    await removeDevices(runtime, store, devices);
    if (this.#place?.hasOwnViews) await this.#place.ended;
    hypervisor.destroy(this.domid);
    await removeHome(store, this.domid, uuid);
    await this.#place?.ended;
    this.#onGone.resolve(domain.shutdownReason ?? 'destroyed');
  }
}

function withResolver<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((resolver) => {
    resolve = resolver;
  });
  return { promise, resolve };
}
