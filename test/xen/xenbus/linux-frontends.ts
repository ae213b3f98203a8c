// How the Linux frontends answer the states of a backend, as far as the xenbus handshake goes: models of
// xen-drm-front and xen-kbdfront for tests, written from what is known of their behaviour. Like Linux they
// look at the backend's state once per watch event, one event after the other, and never publish a state twice.

import {
  XenbusStateClosed,
  XenbusStateClosing,
  XenbusStateConnected,
  XenbusStateInitialised,
  XenbusStateInitialising,
  XenbusStateInitWait,
  XenbusStateReconfiguring,
} from '../../../src/abi/xenbus.ts';
import { type Runtime, sleep } from '../../../src/runtime/runtime.ts';
import type { Domain, EventChannel, SharedPages } from '../../../src/xen/domain.ts';
import type { DomId } from '../../../src/xen/ids.ts';
import { distrust } from '../../../src/xen/untrusted.ts';
import { readPeerNode } from '../../../src/xen/xenbus/peer-node.ts';
import { parseState, type XenbusState } from '../../../src/xen/xenbus/states.ts';
import { devicePaths, type PvDevice } from '../../../src/xen/xenbus/toolstack.ts';
import type { XenstoreWatch } from '../../../src/xen/xenstore.ts';

/** xen-drm-front looks this often for InitWait while it is removed, and this many times. */
const REMOVE_POLL_MS = 10;
const REMOVE_POLLS = 100;

abstract class LinuxFrontend {
  readonly runtime: Runtime;
  readonly domain: Domain;
  readonly backendDomid: DomId;
  readonly paths: { readonly backend: string; readonly frontend: string };
  state: XenbusState = XenbusStateInitialising;
  page: SharedPages | undefined;
  channel: EventChannel | undefined;
  /** What went wrong in answering the backend: nothing, unless the device is being taken away. */
  readonly errors: unknown[] = [];
  #watch: XenstoreWatch | undefined;
  #events: Promise<void> = Promise.resolve();

  constructor(runtime: Runtime, domain: Domain, device: PvDevice) {
    this.runtime = runtime;
    this.domain = domain;
    this.backendDomid = device.backendDomid;
    this.paths = devicePaths(device);
  }

  protected abstract react(backend: XenbusState): Promise<void>;

  protected async watchBackend(): Promise<void> {
    this.#watch = await this.domain.store.watch(`${this.paths.backend}/state`, () => {
      this.#events = this.#events
        .then(() => this.#look())
        .catch((error: unknown) => {
          this.errors.push(error);
        });
    });
  }

  async #look(): Promise<void> {
    if (this.#watch) await this.react(await this.backendState());
  }

  protected async unwatchBackend(): Promise<void> {
    const watch = this.#watch;
    this.#watch = undefined;
    await watch?.[Symbol.asyncDispose]();
    await this.#events;
  }

  /** The driver is gone without a word, as when its device was removed by force. */
  async abandon(): Promise<void> {
    await this.unwatchBackend();
    await this.free();
  }

  async backendState(): Promise<XenbusState> {
    const value = await readPeerNode(this.domain.store, `${this.paths.backend}/state`);
    return parseState(value === undefined ? undefined : distrust(value));
  }

  protected async show(state: XenbusState): Promise<void> {
    if (state === this.state) return;
    this.state = state;
    const path = `${this.paths.frontend}/state`;
    // A device that is being removed is not brought back.
    if ((await readPeerNode(this.domain.store, path)) === undefined) return;
    await this.domain.store.write(path, String(state));
  }

  protected async publish(): Promise<void> {
    this.page = await this.domain.grants.share({
      domid: this.backendDomid,
      pages: 1,
      writable: true,
    });
    this.channel = await this.domain.events.allocUnbound({
      remote: this.backendDomid,
      handler: () => {},
    });
    const nodes = { 'page-ref': this.page.refs[0]!, 'event-channel': this.channel.port };
    await this.domain.store.transaction(async (access) => {
      for (const [key, value] of Object.entries(nodes)) {
        await access.write(`${this.paths.frontend}/${key}`, String(value));
      }
    });
  }

  protected async free(): Promise<void> {
    const { page, channel } = this;
    this.page = undefined;
    this.channel = undefined;
    await channel?.[Symbol.asyncDispose]();
    await page?.[Symbol.asyncDispose]();
  }

  /** Whether the backend has the page that is shared now. */
  get served(): boolean {
    return this.page?.bytes[0] === 1;
  }
}

/** xen-drm-front. With `clients`, they keep the device open for a while when the backend goes away. */
export class DrmFront extends LinuxFrontend {
  #drm = false;
  /** Resolves when the programs that use the device have closed it (be-alloc). */
  clients: Promise<void> | undefined;

  async probe(): Promise<void> {
    this.state = XenbusStateInitialising;
    const path = `${this.paths.frontend}/state`;
    await this.domain.store.write(path, String(XenbusStateInitialising));
    await this.watchBackend();
  }

  /** Driver unbound: whether the backend came to InitWait in time. */
  async remove(): Promise<boolean> {
    await this.unwatchBackend();
    await this.show(XenbusStateClosing);
    let polls = REMOVE_POLLS;
    while ((await this.backendState()) !== XenbusStateInitWait && --polls > 0) {
      await sleep(this.runtime, REMOVE_POLL_MS);
    }
    await this.#fini();
    await this.show(XenbusStateClosed);
    return polls > 0;
  }

  async #fini(): Promise<void> {
    if (!this.#drm) return;
    this.#drm = false;
    await this.free();
    await this.show(XenbusStateInitialising);
  }

  async #disconnect(): Promise<void> {
    if (!this.#drm) return;
    await this.show(XenbusStateReconfiguring);
    if (!this.clients) return this.#fini();
    this.#drm = false;
    await this.free();
    void this.clients.then(() => this.show(XenbusStateInitialising));
    this.clients = undefined;
  }

  protected async react(backend: XenbusState): Promise<void> {
    switch (backend) {
      case XenbusStateInitialising:
        if (this.state !== XenbusStateReconfiguring) await this.#disconnect();
        return;
      case XenbusStateInitWait:
        if (this.state === XenbusStateReconfiguring) return;
        await this.#disconnect();
        if (this.state !== XenbusStateInitialising) return;
        await this.publish();
        return this.show(XenbusStateInitialised);
      case XenbusStateConnected:
        if (this.state !== XenbusStateInitialised) return;
        this.#drm = true;
        return this.show(XenbusStateConnected);
      case 0:
      case XenbusStateClosed:
        if (this.state !== XenbusStateClosed) await this.#disconnect();
    }
  }
}

/** xen-kbdfront: publishes at probe, waits for nobody, keeps its page whatever the backend does. */
export class KbdFront extends LinuxFrontend {
  async probe(): Promise<void> {
    await this.publish();
    await this.show(XenbusStateInitialised);
    await this.watchBackend();
  }

  /** Resume from suspend: a zeroed page under a new reference, and Initialised again. */
  async resume(): Promise<void> {
    await this.free();
    await this.publish();
    await this.show(XenbusStateInitialised);
  }

  async remove(): Promise<void> {
    await this.unwatchBackend();
    await this.free();
    await this.show(XenbusStateClosed);
  }

  protected async react(backend: XenbusState): Promise<void> {
    switch (backend) {
      case XenbusStateInitWait:
      case XenbusStateConnected:
        return this.show(XenbusStateConnected);
      case XenbusStateClosing:
      case XenbusStateClosed:
        return this.show(XenbusStateClosed);
    }
  }
}
