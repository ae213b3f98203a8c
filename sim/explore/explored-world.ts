// The world whose every course explore.ts goes through: a machine with a driver domain and guests with a display
// each, from the moment at which the displays are connected. Hypervisor, grant tables, event channels, ledger,
// core and display backend are the real code; xenstore is not in it, as nobody needs it while a display is connected.
//
// What can happen, besides the tasks of the code itself: a guest's next request, and what it does with memory that it
// borrowed; an output completes a flip, or lets a picture go; a guest dies, which the backend hears of at some later
// time; a display is taken away from a guest that goes on living; or the backend dies, and the hypervisor takes its
// domain away with all that it mapped. At most one of these ends comes.

import { createHash } from 'node:crypto';
import { Connection } from '../../src/display/connection.ts';
import type { ConnectorInfo, DisplayOutput, Picture } from '../../src/display/output.ts';
import { leakReport } from '../../src/hypervisor/books.ts';
import { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { HypercallPort } from '../../src/hypervisor/hypercalls.ts';
import { Hypervisor } from '../../src/hypervisor/hypervisor.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';
import type { Scope } from '../../src/runtime/scope.ts';
import type { Domain } from '../../src/xen/domain.ts';
import { distrust } from '../../src/xen/untrusted.ts';
import type { BackendDevice } from '../../src/xen/xenbus/driver.ts';
import { type Budget, DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { openGuest } from '../../src/zcopy/guest.ts';
import { type Account, Ledger } from '../../src/zcopy/ledger.ts';
import { NO_STORE } from '../no-store.ts';
import type { Act } from './acts.ts';
import { ChosenConnector } from './chosen-output.ts';
import { ChosenTime, type Move } from './chosen-runtime.ts';
import { ExploredGuest } from './explored-guest.ts';
import { brokenLoans, loansOf } from './lending-rules.ts';
import { wrongRow } from './row-rules.ts';
import { stepwiseDomain } from './stepwise-domain.ts';

export interface WorldOptions {
  /** What each guest does; one guest for each. */
  readonly lives: readonly (readonly Act[])[];
  /** Who may die at any moment, and whether displays may be taken away. */
  readonly deaths: {
    readonly guests: boolean;
    readonly backend: boolean;
    readonly displays?: boolean;
  };
  /** What each guest's budget has room for; more than it ever wants, unless said. */
  readonly buffersMax?: number;
  /** The backend's domain as it uses it; with hypercalls that take their time unless said. */
  readonly backendDomain?: (domain: Domain, runtime: Runtime, port: HypercallPort) => Domain;
  readonly connector?: (info: ConnectorInfo) => ChosenConnector;
}

/** A guest, and what the backend has of it. */
interface Served {
  readonly guest: ExploredGuest;
  readonly account: Account;
  /** Of the device: closing it is what xenbus does when the device goes. */
  readonly scope: Scope;
  closing: boolean;
}

/** More than any life has. */
const BUFFERS_MAX = 4;
const MACHINE_FRAMES = 128;
const GUEST_FRAMES = 32;
const BACKEND = 'backend';

export class ExploredWorld implements Disposable {
  readonly #options: WorldOptions;
  readonly #time = new ChosenTime();
  readonly #hypervisor: Hypervisor;
  readonly #ledger = new Ledger();
  readonly #backend: GuestDomain;
  readonly #outputs: ChosenConnector[] = [];
  readonly #served: Served[] = [];
  #died = false;
  #backendAlive = true;

  private constructor(options: WorldOptions) {
    this.#options = options;
    const runtime = this.#time.runtime('xen');
    this.#hypervisor = new Hypervisor({ runtime, machineFrames: MACHINE_FRAMES });
    this.#backend = this.#domain(BACKEND);
  }

  /** A world in which all displays are connected and nothing is left to do. */
  static async start(options: WorldOptions): Promise<ExploredWorld> {
    const world = new ExploredWorld(options);
    for (const [index, life] of options.lives.entries()) {
      await world.#settle(world.#connect(String.fromCharCode(65 + index), life));
    }
    while (!world.#time.quiet) await world.step(world.#time.first()!);
    return world;
  }

  /** All that can happen next, in an order that depends on nothing but what happened so far. */
  moves(): Move[] {
    const people = this.#served.flatMap(({ guest }) => guest.moves());
    const outputs = this.#backendAlive ? this.#outputs.flatMap((output) => output.moves()) : [];
    return [...this.#time.moves(), ...people, ...outputs, ...this.#deaths()];
  }

  /** The first of these: most steps of a course are that, and need none of the others. */
  firstMove(): Move | undefined {
    return this.#time.first() ?? this.moves()[0];
  }

  /** Makes one thing happen, and everything that follows at once. */
  async step({ run }: Move): Promise<void> {
    try {
      run();
    } catch (error) {
      this.#time.complaints.push(`a step threw ${stackOf(error)}`);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** What of the world makes a difference to its future, as a hash. */
  fingerprint(): string {
    return createHash('sha1').update(this.describe().join('\n')).digest('base64');
  }

  /** The same for people. */
  describe(): string[] {
    const { domains } = this.#hypervisor.books();
    return [
      ...domains.map(({ mappedBy, kernel, ...books }) =>
        JSON.stringify({ ...books, mappedBy: [...mappedBy], kernel }),
      ),
      ...this.#served.map(({ guest, account, closing }) => {
        const buffers = account.buffers.map(
          ({ name, state, holders }) => `${name} ${state} ${JSON.stringify(holders)}`,
        );
        return `${guest.describe()}, closing ${closing}, ${JSON.stringify(account.held)}, ${buffers}`;
      }),
      ...this.#outputs.map((output) => output.describe()),
      ...this.#time.describe(),
    ];
  }

  /** The rules that are broken now, a line each. */
  violations(): string[] {
    const complaints = this.#served.flatMap(({ guest }) => guest.complaints);
    const lending = brokenLoans(this.#hypervisor, this.#backend.domid);
    const rules = [...this.#time.complaints, ...complaints, ...lending];
    if (!this.#backendAlive) return rules;
    return [...rules, ...this.#wrongReads(), ...this.#wrongRows()];
  }

  /** What has come to nothing when nothing can happen any more, a line each. */
  async remains(): Promise<string[]> {
    const unhappy = this.#served
      .filter(
        ({ guest, closing }) => this.#backendAlive && guest.alive && !closing && !guest.content,
      )
      .map(({ guest }) => `an honest guest is not served: ${guest.describe()}`);
    for (const { guest, scope } of this.#served) {
      if (guest.alive) this.#hypervisor.destroy(guest.domain.domid);
      guest.alive = false;
      if (this.#backendAlive) await this.#settle(scope.close());
    }
    while (this.#backendAlive) {
      const move = this.#time.first();
      if (move === undefined) break;
      await this.step(move);
    }
    const rows = [...this.#ledger.accounts].map(
      ({ name, held }) => `the row of ${name} is left: ${JSON.stringify(held)}`,
    );
    // A backend that lives is there, and has nothing.
    const idle = `domain ${this.#backend.domid} (${BACKEND}, running): `;
    const leaks = leakReport(this.#hypervisor.books()).filter((line) => line !== idle);
    return [...unhappy, ...(this.#backendAlive ? rows : []), ...leaks, ...this.#time.complaints];
  }

  [Symbol.dispose](): void {
    this.#hypervisor[Symbol.dispose]();
  }

  #domain(name: string): GuestDomain {
    const { domid } = this.#hypervisor.createDomain({ name, limits: { maxFrames: GUEST_FRAMES } });
    const port = this.#hypervisor.enter(domid);
    const runtime = this.#time.runtime(name);
    return new GuestDomain({ port, runtime, connectStore: () => NO_STORE });
  }

  async #connect(name: string, life: readonly Act[]): Promise<void> {
    const { backendDomain = stepwiseDomain } = this.#options;
    const runtime = this.#time.runtime(BACKEND);
    const domain = this.#domain(name);
    const { domid } = domain;
    const port = this.#hypervisor.enter(domid);
    const backend = this.#backend.domid;
    const budget = this.#budget();
    const guest = await ExploredGuest.start({
      name,
      domain,
      port,
      backend,
      life,
      colour: name.charCodeAt(0),
      buffersMax: budget.buffers,
    });
    const { context, account } = openGuest({
      runtime,
      domain: backendDomain(this.#backend, runtime, this.#hypervisor.enter(this.#backend.domid)),
      ledger: this.#ledger,
      budget,
      domid,
      name,
    });
    const { scope } = context;
    const device = deviceOf({
      runtime,
      guest,
      context,
      fail: (error) => guest.complaints.push(String(error)),
    });
    this.#served.push({ guest, account, scope, closing: false });
    const connection = scope.child('connection');
    await Connection.open({ output: this.#output(), device, scope: connection });
  }

  #budget(): Budget {
    const { buffersMax: buffers = BUFFERS_MAX } = this.#options;
    return { ...DEFAULT_BUDGET, buffers, poolPages: buffers };
  }

  #output(): DisplayOutput {
    const { connector: make = (info) => new ChosenConnector(info) } = this.#options;
    return {
      connect: async (info: ConnectorInfo) => {
        const connector = make(info);
        this.#outputs.push(connector);
        return connector;
      },
    };
  }

  #deaths(): Move[] {
    const { guests, backend, displays = false } = this.#options.deaths;
    const moves = this.#served.flatMap((served) => this.#endsOf(served, { guests, displays }));
    if (this.#died || !backend) return moves;
    return [...moves, { name: 'the backend dies', run: () => this.#killBackend() }];
  }

  #endsOf(served: Served, may: { readonly guests: boolean; readonly displays: boolean }): Move[] {
    const { guest, closing } = served;
    const moves: Move[] = [];
    if (!this.#died && may.guests) {
      moves.push({ name: `${guest.name} dies`, run: () => this.#kill(guest) });
    }
    if (!this.#died && may.displays) {
      const run = () => {
        this.#died = true;
        this.#close(served);
      };
      moves.push({ name: `the display of ${guest.name} is taken away`, run });
    }
    if (!guest.alive && !closing) {
      const run = () => this.#close(served);
      moves.push({ name: `the backend hears that ${guest.name} is gone`, run });
    }
    return moves;
  }

  #close(served: Served): void {
    served.closing = true;
    served.guest.served = false;
    void served.scope.close();
  }

  #kill(guest: ExploredGuest): void {
    this.#died = true;
    guest.alive = false;
    this.#time.kill(guest.name);
    this.#hypervisor.destroy(guest.domain.domid);
  }

  #killBackend(): void {
    this.#died = true;
    this.#backendAlive = false;
    for (const { guest } of this.#served) guest.served = false;
    this.#time.kill(BACKEND);
    this.#hypervisor.destroy(this.#backend.domid);
  }

  /** An output reads nothing but its guest's own pictures while they are mapped, and is not called once it is closed. */
  #wrongReads(): string[] {
    return this.#outputs.flatMap(({ lateCalls, reading, domid }) => {
      const guest = this.#served.find((one) => one.guest.domain.domid === domid)!.guest;
      const late = lateCalls > 0 ? ['an output was called after it was closed'] : [];
      return [...late, ...[...reading].flatMap((picture) => wrongPicture(picture, guest))];
    });
  }

  #wrongRows(): string[] {
    const loans = [...loansOf(this.#hypervisor, this.#backend.domid).values()];
    return this.#served.flatMap(({ guest, account }) => {
      const { domid } = guest.domain;
      const mapped = this.#hypervisor.domain(this.#backend.domid)!.maptrack.countByDomain();
      const lentPages = loans.filter(({ to }) => to === domid).length;
      const truth = { mappedPages: mapped.get(domid) ?? 0, lentPages };
      return wrongRow(account, { ...truth, exact: this.#time.quiet });
    });
  }

  /** Lets the first thing happen that can, until the promise settles: for what is not explored. */
  async #settle(promise: Promise<unknown>): Promise<void> {
    let settled = false;
    const done = promise.finally(() => {
      settled = true;
    });
    done.catch(() => {});
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      const move = this.#time.first();
      if (settled || move === undefined) break;
      move.run();
    }
    await done;
  }
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** What an output reads is what the guest drew, or nothing yet. */
function wrongPicture(picture: Picture, guest: ExploredGuest): string[] {
  try {
    const [pixel] = picture.bytes;
    const own = pixel === 0 || pixel === guest.colour;
    return own ? [] : [`an output reads ${pixel} where ${guest.name} draws ${guest.colour}`];
  } catch {
    return ['an output reads a picture whose pages are not mapped'];
  }
}

interface DeviceParts {
  readonly runtime: Runtime;
  readonly guest: ExploredGuest;
  readonly context: BackendDevice['guest'];
  readonly fail: (error: Error) => void;
}

/** The device as the backend would have it of xenbus, connected. */
function deviceOf({ runtime, guest, context, fail }: DeviceParts): BackendDevice {
  return {
    runtime,
    guest: context,
    type: 'vdispl',
    devid: 0,
    backendPath: 'backend',
    frontendPath: 'frontend',
    log: context.log,
    scope: context.scope,
    readBackend: async () => undefined,
    writeBackend: async () => {},
    readFrontend: async (key) => {
      const value = guest.published.get(key);
      return value === undefined ? undefined : distrust(value);
    },
    confirmPublished: async () => {},
    // What is thrown is to be seen by the search.
    confined: (work) => work,
    fail,
  };
}
