// One connection of a display device: from the frontend's Initialised to its going away. Puts together
// the connectors, the buffers and framebuffers that they share, and the output that shows them.
//
// Everything is owned by the connection's scope, and goes in this order: no more events from the guest,
// no more reading by the output, no request in work, pages of the rings unmapped; then, when that is done
// for every connector, the buffers.

import { messageOf } from '../runtime/errors.ts';
import type { Scope } from '../runtime/scope.ts';
import type { EventChannel, EventHandler } from '../xen/domain.ts';
import type { Gref, Port } from '../xen/ids.ts';
import type { BackendDevice } from '../xen/xenbus/driver.ts';
import { Buffers, refuseBadGrant } from './buffers.ts';
import { Connector, type Objects } from './connector.ts';
import { connectorNumber } from './connector-number.ts';
import type { Cookie } from './cookie.ts';
import { inTime } from './deadline.ts';
import { type Framebuffer, Framebuffers } from './framebuffers.ts';
import type { ConnectorInfo, DisplayOutput, OutputConnector } from './output.ts';
import {
  backendAllocates,
  checkVersion,
  type PublishedConnector,
  readConnectors,
} from './published.ts';
import { Refusals } from './refusals.ts';
import type { AttachRequest, CreateRequest, DetachRequest } from './requests.ts';

export interface ConnectionParts {
  readonly output: DisplayOutput;
  readonly device: BackendDevice;
  readonly scope: Scope;
}

/** A connector's rings in our address space. */
interface MappedConnector {
  readonly published: PublishedConnector;
  /** Of all that is held for the connector. */
  readonly scope: Scope;
  readonly controlPage: Uint8Array;
  readonly eventPage: Uint8Array;
}

export class Connection implements Objects {
  readonly connectors: Connector[] = [];
  readonly #parts: ConnectionParts;
  readonly #refusals: Refusals;
  readonly #buffers: Buffers;
  readonly #framebuffers: Framebuffers;

  private constructor(parts: ConnectionParts, lends: boolean) {
    const { output, device, scope } = parts;
    const { runtime, guest } = device;
    this.#parts = parts;
    this.#refusals = new Refusals(runtime, device);
    this.#buffers = new Buffers({
      runtime,
      guest,
      confined: (work) => device.confined(work),
      output,
      lends,
    });
    this.#framebuffers = new Framebuffers(device.guest, (framebuffer) => this.#drop(framebuffer));
    scope.defer(() => this.#buffers.close());
    scope.defer(() => this.#framebuffers.close());
  }

  /**
   * Reads what the frontend published, connects all of it, and serves. What was acquired before a failure
   * is in the scope.
   * @throws ProtocolViolation when what it published is unusable
   * @throws SysError when the system has no room, or the guest did not offer a port that it published
   */
  static async open(parts: ConnectionParts): Promise<Connection> {
    await checkVersion(parts.device);
    const connection = new Connection(parts, await backendAllocates(parts.device));
    const mapped: MappedConnector[] = [];
    for (const published of await readConnectors(parts.device)) {
      mapped.push(await connection.#map(published));
    }
    // What the frontend left meanwhile may be something else by now, where nothing may be written.
    await parts.device.confirmPublished();
    for (const connector of mapped) await connection.#connect(connector);
    return connection;
  }

  create(request: CreateRequest): Promise<void> {
    return this.#buffers.create(request);
  }

  async destroy(cookie: Cookie): Promise<void> {
    using _work = this.#parts.device.guest.charge({ requests: 1 });
    const buffer = this.#buffers.live(cookie);
    for (const framebuffer of [...buffer.framebuffers]) this.#framebuffers.detach(framebuffer);
    await this.#buffers.release(buffer);
  }

  attach(request: AttachRequest): void {
    this.#framebuffers.attach(this.#buffers.live(request.buffer), request);
  }

  detach({ framebuffer }: DetachRequest): void {
    this.#framebuffers.detach(this.#framebuffers.get(framebuffer));
  }

  framebuffer(cookie: Cookie): Framebuffer {
    return this.#framebuffers.get(cookie);
  }

  #drop(framebuffer: Framebuffer): void {
    for (const { scanout } of this.connectors) scanout.drop(framebuffer);
  }

  async #map(published: PublishedConnector): Promise<MappedConnector> {
    const scope = this.#parts.scope.child(`connector ${published.index}`);
    scope.own(this.#parts.device.guest.charge({ connectors: 1 }));
    const controlPage = await this.#mapPage(scope, published.controlRing);
    const eventPage = await this.#mapPage(scope, published.eventPage);
    return { published, scope, controlPage, eventPage };
  }

  async #connect({ published, scope, controlPage, eventPage }: MappedConnector): Promise<void> {
    const { output, device } = this.#parts;
    const { runtime, guest } = device;
    const { domid } = guest;
    const { index, uniqueId, width, height } = published;
    let connector: Connector | undefined;
    scope.defer(() => connector?.idle());
    const number = connectorNumber(device.devid, index);
    const info: ConnectorInfo = { domid, index: number, uniqueId, width, height };
    const outputConnector = await output.connect(info, runtime);
    scope.defer(() => this.#closeOutput(outputConnector));
    const control = await this.#bind(scope, published.controlPort, () => connector?.serve());
    // The frontend has nothing to say here: events need no confirmation, and it sends none (trap 8).
    const events = await this.#bind(scope, published.eventPort, () => {
      guest.spend('wakeupsPerSecond', 1);
      return guest.rest('wakeupsPerSecond', scope.signal);
    });
    const opened = new Connector({
      runtime,
      info,
      ringIndex: index,
      objects: this,
      output: outputConnector,
      confined: (work) => device.confined(work),
      refusals: this.#refusals,
      guest,
      controlPage,
      eventPage,
      notifyControl: () => control.notify(),
      notifyEvents: () => events.notify(),
      fail: (error) => device.fail(error),
    });
    connector = opened;
    this.connectors.push(opened);
    scope.defer(() => {
      opened.stop();
      this.connectors.splice(this.connectors.indexOf(opened), 1);
    });
    // A notification that came before the handler had a connector was for requests that are there now.
    void device.confined(() => opened.serve())();
  }

  async #mapPage(scope: Scope, ref: Gref): Promise<Uint8Array> {
    const { domid, domain } = this.#parts.device.guest;
    const mapping = domain.foreign.map({ domid, refs: [ref], writable: true });
    return scope.own(await mapping.catch(refuseBadGrant)).bytes;
  }

  async #bind(scope: Scope, remotePort: Port, handler: EventHandler): Promise<EventChannel> {
    const { domid, domain } = this.#parts.device.guest;
    return scope.own(await domain.events.bindInterdomain({ remote: domid, remotePort, handler }));
  }

  /** An output that does not come to an end must not keep the guest from starting anew. */
  async #closeOutput(connector: OutputConnector): Promise<void> {
    const { device } = this.#parts;
    const close = async () => connector[Symbol.asyncDispose]();
    try {
      await inTime(device.runtime, close(), 'closing a connector of the output');
    } catch (error) {
      device.log.error({ error }, messageOf(error));
    }
  }
}
