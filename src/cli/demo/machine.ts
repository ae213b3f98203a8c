// The demo's host: Xen in this process with a few guests, each in a thread of its own, that a person can
// stop, crash and start again.
//
// Invariant: each place at the machine has one guest or the word how the last one ended; a restarted guest
// is a new domain with a new number.

import type { ControlAction } from '../../daemon/status.ts';
import type { GuestControls, KnownGuest } from '../../daemon/view.ts';
import type { Guest, GuestEnd } from '../../hypervisor/guest.ts';
import { XenHost } from '../../hypervisor/xen-host.ts';
import { UsageError } from '../../runtime/errors.ts';
import { type Runtime, withTimeout } from '../../runtime/runtime.ts';
import type { DomId } from '../../xen/ids.ts';
import type { GuestArguments, ProgramName } from './guest.ts';

/** How long a guest may take to stop by itself before it is destroyed. */
const STOP_PATIENCE_MS = 5_000;

const GUEST_MODULE = new URL('./guest.js', import.meta.url);

/** What the places of the machine are for. */
interface Kind {
  readonly program: ProgramName;
  readonly width: number;
  readonly height: number;
  /** The picture is in memory that domain 0 lends to the guest, not in the guest's own. */
  readonly beAlloc: boolean;
}

/** In turn. */
const KINDS: readonly Kind[] = [
  { program: 'test-card', width: 1280, height: 720, beAlloc: false },
  { program: 'sketch', width: 1024, height: 640, beAlloc: true },
];

interface Place extends Kind {
  readonly name: string;
  guest: Guest | undefined;
  /** How the last guest ended, while there is no other. */
  ended: KnownGuest | undefined;
  /** An action on it is under way. */
  busy: boolean;
}

export class DemoMachine implements GuestControls, AsyncDisposable {
  readonly host: XenHost;
  readonly #runtime: Runtime;
  readonly #places: readonly Place[];

  private constructor(runtime: Runtime, { host, guests }: { host: XenHost; guests: number }) {
    this.#runtime = runtime;
    this.host = host;
    this.#places = Array.from({ length: guests }, (_, index) => ({
      ...KINDS[index % KINDS.length]!,
      name: `guest-${index + 1}`,
      guest: undefined,
      ended: undefined,
      busy: false,
    }));
  }

  /** Switches the machine on, with no guest running yet. @throws SysError */
  static async start(runtime: Runtime, { guests }: { guests: number }): Promise<DemoMachine> {
    return new DemoMachine(runtime, { host: await XenHost.start({ runtime }), guests });
  }

  get guests(): readonly KnownGuest[] {
    return this.#places.flatMap(({ guest, ended, busy, name }) => {
      if (!guest) return ended ?? [];
      return { domid: guest.domid, name, state: busy ? 'closing' : 'waiting' };
    });
  }

  /** Boots every guest. @throws SysError */
  async boot(): Promise<void> {
    for (const place of this.#places) await this.#start(place);
  }

  async act(domid: DomId, action: ControlAction): Promise<void> {
    const place = this.#places.find((at) => (at.guest ?? at.ended)?.domid === domid);
    if (!place) throw new UsageError(`there is no guest ${domid}`);
    if (place.busy) throw new UsageError(`${place.name} is busy with another action`);
    if (action !== 'restart' && !place.guest) throw new UsageError(`${place.name} is not running`);
    place.busy = true;
    try {
      if (action === 'crash') await this.#crash(place);
      else await this.#stop(place);
      if (action === 'restart') await this.#start(place);
    } finally {
      place.busy = false;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve(this.host[Symbol.asyncDispose]());
  }

  async #start(place: Place): Promise<void> {
    const { name, program, width, height, beAlloc } = place;
    const guest = await this.host.startGuestWorker({
      name,
      displays: [{ uniqueId: `${name}-screen`, width, height }],
      beAlloc,
      keyboard: { absolute: { width, height } },
      module: GUEST_MODULE,
      arguments: { program } satisfies GuestArguments,
    });
    place.guest = guest;
    place.ended = undefined;
    void guest.gone.then((end) => {
      place.guest = undefined;
      place.ended = { domid: guest.domid, name, state: endState(end) };
    });
  }

  async #stop({ guest }: Place): Promise<void> {
    if (!guest) return;
    await guest.requestShutdown();
    try {
      await withTimeout(this.#runtime, guest.gone, {
        timeoutMs: STOP_PATIENCE_MS,
        onTimeout: () => new Error(`${guest.name} did not stop within ${STOP_PATIENCE_MS} ms`),
      });
    } catch (error) {
      this.#runtime.log.warn({ err: error }, 'destroying a guest that does not stop');
      await guest.destroy();
    }
  }

  async #crash({ guest }: Place): Promise<void> {
    guest?.crash();
    await guest?.gone;
  }
}

function endState(end: GuestEnd): KnownGuest['state'] {
  return end === 'crash' ? 'crashed' : 'stopped';
}
