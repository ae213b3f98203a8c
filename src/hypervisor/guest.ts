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

export class Guest {
  readonly domid: DomId;
  readonly name: string;
  /** Resolves when the guest's domain is destroyed and its nodes are removed. */
  readonly gone: Promise<GuestEnd>;
  readonly #options: GuestOptions;
  readonly #onGone = withResolver<GuestEnd>();
  #thread: { readonly ended: Promise<void> } | undefined;
  #destroyed: Promise<void> | undefined;

  constructor(options: GuestOptions) {
    this.#options = options;
    this.domid = options.domain.domid;
    this.name = options.domain.name;
    this.gone = this.#onGone.promise;
  }

  /** The guest's code runs in this thread; the guest is gone only when it has ended. */
  runsIn(thread: { readonly ended: Promise<void> }): void {
    this.#thread = thread;
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
    await removeDevices(runtime, store, devices);
    hypervisor.destroy(this.domid);
    await removeHome(store, this.domid, uuid);
    await this.#thread?.ended;
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
