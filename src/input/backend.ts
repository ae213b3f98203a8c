// The keyboard backend: kbdif for any number of guests (xen/include/public/io/kbdif.h). The xenbus machinery
// says when a frontend comes and goes; what people do reaches the guests through `GuestInputs`.
//
// libxl calls the device `vkbd` or, for backend-type=linux, `vinput`: one driver each, with the same inputs.

import type { Scope } from '../runtime/scope.ts';
import type { DomId } from '../xen/ids.ts';
import type { BackendDevice, BackendDriver } from '../xen/xenbus/driver.ts';
import type { GuestInput } from './guest-input.ts';
import { KbdConnection } from './kbd-connection.ts';
import { KeyboardInput } from './keyboard-input.ts';
import { publishOffer, readPublished } from './published.ts';
import { RoutedInput } from './routed-input.ts';

/** Directory names of keyboards below `backend/`. */
export const KEYBOARD_TYPES = ['vkbd', 'vinput'] as const;

export type KeyboardType = (typeof KEYBOARD_TYPES)[number];

/** The keyboards and pointers of all guests, by guest. */
export class GuestInputs {
  readonly onChange: () => void;
  readonly #inputs = new Map<DomId, RoutedInput>();

  /** `onChange` is called when an input came, went, or changed its state. */
  constructor(onChange: () => void = () => {}) {
    this.onChange = onChange;
  }

  /** The guest's input, over all of its devices; undefined when it has none. */
  get(domid: DomId): GuestInput | undefined {
    return this.#inputs.get(domid);
  }

  add({ guest: { domid }, devid }: BackendDevice, input: KeyboardInput): void {
    const routed = this.#inputs.get(domid) ?? new RoutedInput();
    this.#inputs.set(domid, routed);
    routed.add(devid, input);
    this.onChange();
  }

  remove({ guest: { domid } }: BackendDevice, input: KeyboardInput): void {
    const routed = this.#inputs.get(domid);
    routed?.remove(input);
    if (routed?.empty) this.#inputs.delete(domid);
    input.close();
  }
}

export interface KeyboardBackendOptions {
  readonly type: KeyboardType;
  /** Shared between the types. */
  readonly inputs: GuestInputs;
}

export class KeyboardBackend implements BackendDriver {
  readonly type: KeyboardType;
  /** xen-kbdfront publishes once in its life and goes on with that under another backend. */
  readonly resumable = true;
  readonly #options: KeyboardBackendOptions;
  readonly #byDevice = new Map<BackendDevice, KeyboardInput>();

  constructor(options: KeyboardBackendOptions) {
    this.type = options.type;
    this.#options = options;
  }

  async announce(device: BackendDevice): Promise<void> {
    const offer = await publishOffer(device);
    const known = this.#byDevice.get(device);
    if (known) {
      known.offer = offer;
      return;
    }
    const { inputs } = this.#options;
    const input = new KeyboardInput(offer, () => inputs.onChange());
    this.#byDevice.set(device, input);
    inputs.add(device, input);
    device.scope.defer(() => {
      this.#byDevice.delete(device);
      inputs.remove(device, input);
    });
  }

  async connect(device: BackendDevice, scope: Scope): Promise<void> {
    const { guest, runtime } = device;
    const { domain, domid } = guest;
    const input = this.#byDevice.get(device)!;
    const { page: ref, port: remotePort, wishes } = await readPublished(device);
    const page = scope.own(await domain.foreign.map({ domid, refs: [ref], writable: true }));
    let connection: KbdConnection | undefined;
    const handler = () => connection?.onNotification();
    const channel = scope.own(
      await domain.events.bindInterdomain({ remote: domid, remotePort, handler }),
    );
    // What an earlier daemon left may be taken back this moment, and the page be one of something else.
    await device.confirmPublished();
    connection = new KbdConnection({
      runtime,
      page: page.bytes,
      signal: scope.signal,
      guest,
      notify: () => channel.notify(),
      fail: (error) => device.fail(error),
      onUnknownEvent: () => guest.countRefusal('unknown-out-event'),
      offer: input.offer,
      contacts: wishes.multiTouch ? (input.offer.touch?.contacts ?? 0) : 0,
    });
    input.connect(connection, wishes);
    scope.defer(() => input.disconnect());
    connection.flush();
  }
}
