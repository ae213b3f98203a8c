// The daemon of a simulated host, as the process that it is: started, killed at any step, stopped in good order and
// started again; with an output, the viewers of it, and a person at the keyboard.

import { Daemon } from '../src/daemon/daemon.ts';
import type { GuestInput } from '../src/input/guest-input.ts';
import { ScreenViewer } from '../src/outputs/browser/screen-viewer.ts';
import type { Screen } from '../src/outputs/screen.ts';
import { messageOf, SysError } from '../src/runtime/errors.ts';
import type { Random } from '../src/runtime/random.ts';
import { sleep } from '../src/runtime/runtime.ts';
import type { Domain } from '../src/xen/domain.ts';
import { DOM0, type DomId } from '../src/xen/ids.ts';
import type { Ledger } from '../src/zcopy/ledger.ts';
import { between, happens, oneOf, streamOf } from './chance.ts';
import { keyCodes } from './guests/honest.ts';
import { firstPixel, type OutputMemory, SimOutput } from './output.ts';
import { Program } from './program.ts';
import { programDomain } from './program-domain.ts';
import { connectStore } from './store-connection.ts';
import type { Surroundings } from './surroundings.ts';

/** Time that a killed daemon is gone, in milliseconds. */
const DOWN_MS = [1, 3000] as const;
/** A viewer's time for an update on a good and on a slow link, in milliseconds. */
const DRAWN_AFTER_MS = [1, 10] as const;
const SLOW_DRAWN_AFTER_MS = [50, 2000] as const;
/** Time between two things that the person does, in milliseconds. */
const TYPING_MS = [5, 400] as const;
/** One thing in so many is done to the guest whose turn it was, whether or not it is still there. */
const SAME_GUEST_ONE_IN = 3;
/** Time between two looks at the daemon's status, in milliseconds. */
const STATUS_MS = [50, 2000] as const;
/** A daemon that lost xenstored is closed by then: outputs and readers have their own bounds, hypercalls may be slow. */
const CLOSING_MS = 60_000;
const VIEWERS_MAX = 4;
/** The person points into a square of so many pixels. */
const POINTED_AT = 100;

/** Many events at once, and what is none, come once in so many times. */
const HASTE_ONE_IN = 20;
const HASTY_EVENTS = 1500;
const NONSENSE_ONE_IN = 20;

/** Nothing of this may reach a guest. */
function nonsense(input: GuestInput): void {
  input.key(0, true);
  input.key(0x300, true);
  input.key(1.5, true);
  input.motion(Number.NaN, 0);
  input.position(0, Number.POSITIVE_INFINITY);
  input.wheel(Number.NaN);
  for (const contact of [-1, 1.5, 256]) input.touch({ contact, phase: 'down', x: 0, y: 0 });
}

export interface BackendOptions {
  readonly world: Surroundings;
  readonly importsBuffers: boolean;
  /** Memory that the output makes for guests' buffers. */
  readonly outputMemory: OutputMemory;
  readonly refreshHz: number;
  /** What the daemon gets for its domain; a test makes it defective here. */
  readonly through: (domain: Domain) => Domain;
  readonly throughOutput: (output: SimOutput) => SimOutput;
}

/** One life of the daemon. */
interface Life {
  readonly program: Program;
  readonly viewers: Set<ScreenViewer>;
  daemon: Daemon | undefined;
  ledger: Ledger | undefined;
  output: SimOutput | undefined;
  /** Breaks its connection to xenstored. */
  sever: () => void;
}

export class Backend {
  readonly #options: BackendOptions;
  readonly #random: Random;
  /** Programs that are dead and of which the kernel still has something. */
  readonly #remains = new Set<Program>();
  #life: Life | undefined;
  #lives = 0;
  #closed = false;
  #typing = true;

  constructor(options: BackendOptions) {
    this.#options = options;
    this.#random = streamOf(options.world.seed, 'backend');
  }

  /** The daemon, while it serves. */
  get daemon(): Daemon | undefined {
    return this.#life?.daemon;
  }

  /** The books of the daemon, while it serves. */
  get ledger(): Ledger | undefined {
    return this.#life?.daemon && this.#life.ledger;
  }

  /** Whether there is a daemon, serving or about to. */
  get running(): boolean {
    return this.#life !== undefined;
  }

  /** Whether none of the daemon's calls is under way. */
  get quiet(): boolean {
    return this.#life?.program.busy === 0;
  }

  /** Whether nothing is left of daemons that are gone. */
  get clean(): boolean {
    for (const program of this.#remains) if (program.held === 0) this.#remains.delete(program);
    return this.#remains.size === 0;
  }

  shownPixel(domid: DomId, connector: number): number | undefined {
    const screen = this.#life?.output?.screen(domid, connector);
    return screen && firstPixel(screen);
  }

  /** Every screen and the domain whose it is. */
  get screens(): Iterable<Screen> {
    return this.#life?.output?.screens ?? [];
  }

  /** Starts the daemon; when it does not start, again a little later, as an init system does. */
  start(): void {
    const { world } = this.#options;
    this.#lives += 1;
    const random = streamOf(world.seed, `daemon ${this.#lives}`);
    const program = new Program({ runtime: world.runtime, random, log: world.runtime.log });
    const life: Life = {
      program,
      viewers: new Set(),
      daemon: undefined,
      ledger: undefined,
      output: undefined,
      sever: () => {},
    };
    this.#life = life;
    this.#run(life).catch((error: unknown) => {
      world.findings.hold(error instanceof SysError, 'defect', () => {
        return `the daemon does not start: ${messageOf(error)}`;
      });
      if (this.#life === life) this.kill();
    });
  }

  /** Ends the daemon at this step; it is started again later. */
  kill(): void {
    const life = this.#life;
    if (!life) return;
    this.#bury(life);
    const { runtime } = this.#options.world;
    runtime.after(between(this.#random, ...DOWN_MS), () => {
      if (!this.#life && !this.#closed) this.start();
    });
  }

  /** The daemon's connection to xenstored breaks. */
  loseStore(): void {
    this.#life?.sever();
  }

  /** Ends the daemon in good order, and for good. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.stop();
  }

  /** Ends the daemon in good order. */
  async stop(): Promise<void> {
    const life = this.#life;
    if (!life?.daemon) return this.kill();
    await life.daemon[Symbol.asyncDispose]();
    this.#bury(life);
  }

  /** A viewer goes, and another one comes. */
  changeViewers(): void {
    const life = this.#life;
    if (!life) return;
    const [first] = life.viewers;
    if (first && happens(this.#random, 2)) {
      first[Symbol.dispose]();
      life.viewers.delete(first);
    }
    const screens = [...(life.output?.screens ?? [])];
    if (screens.length > 0 && life.viewers.size < VIEWERS_MAX) {
      this.#watch(life, oneOf(this.#random, screens));
    }
  }

  /** The person gets up, and whatever was down is released. */
  stopTyping(domids: Iterable<DomId>): void {
    this.#typing = false;
    for (const domid of domids) this.#life?.daemon?.input(domid)?.releaseAll();
  }

  /** As `serve` does: the daemon gives back everything, in its time, and ends; its init system starts it again. */
  async #storeLost(life: Life): Promise<void> {
    const { runtime, findings } = this.#options.world;
    if (this.#life !== life) return;
    if (!life.daemon) return this.kill();
    let closed = false;
    runtime.after(CLOSING_MS, () => {
      const detail = () => `the daemon is not closed ${CLOSING_MS} ms after it lost xenstored`;
      findings.hold(closed || !life.program.alive, 'left-behind', detail);
    });
    await life.daemon[Symbol.asyncDispose]();
    closed = true;
    if (this.#life === life) this.kill();
  }

  #defect(error: unknown): void {
    this.#options.world.findings.hold(false, 'defect', () => `the daemon: ${messageOf(error)}`);
  }

  /** What the kernel still has of a daemon that is gone, it gives back. */
  #bury(life: Life): void {
    if (this.#life === life) this.#life = undefined;
    life.program.kill();
    this.#remains.add(life.program);
  }

  async #run(life: Life): Promise<void> {
    const { world, importsBuffers, outputMemory, refreshHz, through, throughOutput } =
      this.#options;
    const { runtime, host, faults, findings, trace, budget } = world;
    const { program } = life;
    const { store, sever } = connectStore(world, { program, domid: DOM0 });
    life.sever = sever;
    void store.closed.then((lost) => {
      if (lost) this.#storeLost(life).catch((error: unknown) => this.#defect(error));
    });
    const own = programDomain({ runtime, program, domain: host.dom0, store, faults, trace });
    life.daemon = await Daemon.start({
      runtime: program,
      domain: through(own),
      budget,
      refreshHz,
      hostPaths: {},
      onLedger: (ledger) => {
        life.ledger = ledger;
      },
      output: (options) => {
        life.output = throughOutput(
          new SimOutput(options, {
            faults,
            findings,
            keepsRules: world.keepsRules,
            importsBuffers,
            outputMemory,
            memory: own.memory,
          }),
        );
        return life.output;
      },
    });
    trace.note('daemon serves', this.#lives);
    await Promise.all([this.#type(life), this.#lookAtStatus(life)]);
  }

  /** A person who presses keys of whichever guest is there. */
  async #type({ program, daemon, ledger }: Life): Promise<void> {
    let hands: Hands | undefined;
    for (;;) {
      await sleep(program, between(this.#random, ...TYPING_MS));
      if (!this.#typing) return;
      const keyboards = connectedInputs(daemon!, ledger!);
      if (!happens(this.#random, SAME_GUEST_ONE_IN)) hands = undefined;
      if (keyboards.length > 0) hands ??= oneOf(this.#random, keyboards);
      if (hands === undefined) continue;
      const { domid, input } = hands;
      const { first, count } = keyCodes(domid);
      input.key(first + this.#random.below(count), happens(this.#random, 2));
      this.#use(input);
      if (happens(this.#random, 8)) input.releaseAll();
    }
  }

  /** As those do who watch over the daemon: what it says of itself is whole, whatever goes on. */
  async #lookAtStatus({ program, daemon }: Life): Promise<void> {
    const { trace, host } = this.#options.world;
    for (;;) {
      await sleep(program, between(this.#random, ...STATUS_MS));
      const { guests } = daemon!.status();
      const displays = guests.flatMap((guest) => guest.displays);
      trace.note('status', guests.length, displays.length);
      for (const { domid } of host.guests) daemon!.nameOf(domid);
    }
  }

  /** One thing, many of them at once, or what no person and no device could mean. */
  #use(input: GuestInput): void {
    if (happens(this.#random, NONSENSE_ONE_IN)) nonsense(input);
    const times = happens(this.#random, HASTE_ONE_IN) ? HASTY_EVENTS : 1;
    for (let left = times; left > 0; left--) this.#point(input);
  }

  /** Something that is done with a pointer or a finger, now and then. */
  #point(input: GuestInput): void {
    const random = this.#random;
    const [x, y] = [random.below(POINTED_AT), random.below(POINTED_AT)];
    const act = random.below(12);
    if (act === 0) input.position(x, y);
    if (act === 1) input.motion(x - POINTED_AT / 2, y - POINTED_AT / 2);
    if (act === 2) input.wheel(random.below(7) - 3);
    if (act !== 3) return;
    const phase = oneOf(random, ['down', 'move', 'up'] as const);
    input.touch({ contact: random.below(3), phase, x, y });
  }

  #watch(life: Life, screen: Screen): void {
    const { faults, findings } = this.#options.world;
    const { program, viewers } = life;
    let frame = 0;
    const viewer = new ScreenViewer(program, {
      screen,
      transport: {
        local: true,
        send: async () => {
          frame += 1;
          const slow = faults.strikes('viewer-slow');
          const [min, max] = slow ? SLOW_DRAWN_AFTER_MS : DRAWN_AFTER_MS;
          const update = frame;
          program.after(faults.measure('viewer-slow', min, max), () => viewer.drawn(update));
        },
        fail: (reason) => {
          findings.hold(false, 'defect', () => `a viewer failed: ${messageOf(reason)}`);
        },
      },
      onClosed: () => viewers.delete(viewer),
    });
    viewers.add(viewer);
  }
}

/** A guest's input, and whose it is. */
interface Hands {
  readonly domid: DomId;
  readonly input: GuestInput;
}

function connectedInputs(daemon: Daemon, ledger: Ledger): Hands[] {
  const connected: Hands[] = [];
  for (const { domid } of ledger.accounts) {
    const input = daemon.input(domid);
    if (input?.state === 'connected') connected.push({ domid, input });
  }
  return connected;
}
