// A simulated world: one host with its daemon, its guests and its fate, all of it the real code, in one thread and
// in virtual time; looked at after every step.
//
// A world lives in two halves. In the first everything goes wrong that can; then it is healed, and every
// guest that keeps the rules has to get on, whatever the others still do. At its end everything is taken away, and
// nothing may be left, on nobody's books.

import pino from 'pino';
import { leakReport } from '../src/hypervisor/books.ts';
import type { HypercallPort } from '../src/hypervisor/hypercalls.ts';
import { XenHost } from '../src/hypervisor/xen-host.ts';
import { messageOf } from '../src/runtime/errors.ts';
import type { Logger } from '../src/runtime/runtime.ts';
import { VirtualRuntime } from '../src/runtime/virtual.ts';
import type { Domain } from '../src/xen/domain.ts';
import type { DomId } from '../src/xen/ids.ts';
import { Backend } from './backend.ts';
import { Fate } from './fate.ts';
import { Faults } from './faults.ts';
import { Findings, type Violation } from './findings.ts';
import { isMarkOf } from './guests/honest.ts';
import type { GuestLife } from './guests/life.ts';
import { HypervisorOracle } from './hypervisor-oracle.ts';
import { LedgerOracle } from './ledger-oracle.ts';
import { ObservedPort } from './observed-port.ts';
import { firstPixel, type SimOutput } from './output.ts';
import { MACHINE_FRAMES, type Plan, planOf } from './plan.ts';
import { Population } from './population.ts';
import type { RingOracle } from './ring-oracle.ts';
import type { Surroundings } from './surroundings.ts';
import { Trace } from './trace.ts';

/** Frames that every honest guest must show once nothing goes wrong, and how long that may take, in milliseconds. */
const PROGRESS_FRAMES = 3;
const PROGRESS_MS = 30_000;
/**
 * Time for keys to be released (a daemon that was killed is back after 3 s, a device that failed tries again after 5),
 * and for everything to come to its end, in milliseconds.
 */
const KEYS_MS = 10_000;
const END_MS = 60_000;
/** How a virtual runtime begins to say that nothing is left to run. */
const WORLD_STOPPED = 'the virtual world stopped';
/** No phase takes more steps than these. */
const PHASE_STEPS_MAX = 4_000_000;
/** What nobody can cause but a bug. */
const BUG_TYPES = new Set(['AssertionError', 'TypeError', 'RangeError', 'ReferenceError']);

/** Where a test puts defects in: what the code under test stands on, passed through these. */
export interface Defects {
  readonly port?: (port: HypercallPort) => HypercallPort;
  readonly domain?: (domain: Domain) => Domain;
  readonly output?: (output: SimOutput) => SimOutput;
  readonly sharing?: (domain: Domain) => Domain;
}

export interface WorldOptions {
  readonly seed: number;
  /** Names of what is left out: guests, kinds of faults, single acts. */
  readonly omitted?: ReadonlySet<string>;
  readonly readable?: boolean;
  readonly defects?: Defects;
}

export class World {
  readonly trace: Trace;
  /** Acts that could be left out, by name, in their order. */
  readonly acts: ReadonlySet<string>;
  readonly faults: Faults;
  readonly population: Population;
  readonly #findings: Findings;
  readonly #world: Surroundings;
  readonly #backend: Backend;
  readonly #ledger: LedgerOracle;
  readonly #fate: Fate;

  private constructor(world: Surroundings, { plan, defects, omitted, acts }: Parts) {
    this.acts = acts;
    this.trace = world.trace;
    this.faults = world.faults;
    this.#findings = world.findings;
    this.#world = world;
    const same = <T>(it: T) => it;
    const { domain: through = same, output: throughOutput = same } = defects;
    const { importsBuffers, outputMemory, refreshHz, fateEveryMs: everyMs } = plan;
    const how = { importsBuffers, outputMemory, refreshHz };
    this.#backend = new Backend({ world, ...how, through, throughOutput });
    const { hypervisor } = world.host;
    const { oracle, budget, findings } = world;
    this.#ledger = new LedgerOracle({ hypervisor, oracle, budget, findings });
    this.population = new Population(world);
    const [backend, population] = [this.#backend, this.population];
    hypervisor.onDomainChange((domid) => this.#forgetRings(domid));
    this.#backend.start();
    for (const guest of plan.guests) {
      if (!omitted.has(guest.name)) this.#inBackground(population.fill(guest));
    }
    this.#fate = new Fate({ world, backend, population, everyMs });
    this.#inBackground(this.#fate.run());
  }

  /** A world in its first moment. */
  static async open(options: WorldOptions): Promise<World> {
    const { seed, omitted = new Set(), readable = false, defects = {} } = options;
    const trace = new Trace({ readable });
    const findings = new Findings();
    const faults = new Faults({ seed, trace, muted: omitted });
    const oracle = new HypervisorOracle({ trace, findings });
    const runtime = new VirtualRuntime(seed, defectLogger(findings));
    const { port: defective = (port: HypercallPort) => port } = defects;
    const observed = (port: HypercallPort) =>
      new ObservedPort(defective(port), { observer: oracle, findings });
    let host: XenHost | undefined;
    const starting = XenHost.start({
      runtime,
      machineFrames: MACHINE_FRAMES,
      throughPort: observed,
      allocationFault: () => faults.strikes('no-frames') && host !== undefined,
    });
    await runtime.runUntil(settled(starting), { what: 'the host is on' });
    host = await starting;
    oracle.watch(host.hypervisor);
    const { hypervisor } = host;
    const acts = new Set<string>();
    const plan = planOf(seed);
    let world: World | undefined;
    const surroundings: Surroundings = {
      seed,
      runtime,
      host,
      budget: plan.budget,
      trace,
      faults,
      findings,
      oracle,
      rings: new Set<RingOracle>(),
      sharers: new Set<DomId>(),
      drivers: new Set<DomId>(),
      detached: new Set<DomId>(),
      detachments: new Map<DomId, number>(),
      throughSharing: defects.sharing ?? ((domain) => domain),
      omits: (act) => {
        acts.add(act);
        return omitted.has(act);
      },
      port: (domid) => observed(hypervisor.enter(domid)),
      runs: (domid) => hypervisor.domain(domid)?.state === 'running',
      keepsRules: (domid) => world?.population.life(domid)?.honest ?? false,
      quarantined: (domid) => world?.quarantined(domid) ?? false,
      shownPixel: (domid, connector) => world?.shownPixel(domid, connector),
    };
    world = new World(surroundings, { plan, defects, omitted, acts });
    return world;
  }

  /** The first pixel that a connector shows; undefined while it shows nothing. */
  shownPixel(domid: DomId, connector: number): number | undefined {
    return this.#backend.shownPixel(domid, connector);
  }

  /** Whether the daemon says that it has not let go of something of that domain. */
  quarantined(domid: DomId): boolean {
    return (this.#backend.ledger?.heldBy(domid).quarantinedPages ?? 0) > 0;
  }

  get steps(): number {
    return this.#world.runtime.steps;
  }

  get violation(): Violation | undefined {
    return this.#findings.first;
  }

  /** Lives for so many steps, with everything going wrong; shorter when something does not hold. */
  async live(steps: number): Promise<void> {
    const until = this.steps + steps;
    const lived = () => this.steps >= until;
    await this.#reach(lived, { what: 'life goes on', withinMs: Number.POSITIVE_INFINITY });
  }

  /** Is healed, and gets on; then ends, with nothing left of anything. */
  async conclude(): Promise<void> {
    this.faults.heal();
    await this.#getOn();
    await this.#releaseKeys();
    await this.#end();
  }

  async #getOn(): Promise<void> {
    const guests = this.population.lives.filter(({ honest }) => honest);
    const goals = [
      ...guests.map((life) => this.#goal(life, 'shows', () => life.frames)),
      ...this.#sharingGoals(guests),
    ];
    const late = () =>
      goals.filter(({ life, count, aim }) => this.#isPresent(life) && count() < aim);
    const missing = () =>
      late().map(({ life, what }) => `domain ${life.guest.domid} ${what} no more`);
    const what = 'every guest that keeps the rules gets on';
    await this.#reach(() => late().length === 0, { what, withinMs: PROGRESS_MS, missing });
  }

  /** Those that share, where there are two of them: each sends, and each receives. */
  #sharingGoals(guests: readonly GuestLife[]): Progress[] {
    const sharing = guests.filter(({ sharer }) => sharer !== undefined);
    if (sharing.length < 2) return [];
    return sharing.flatMap((life) => [
      this.#goal(life, 'sends', () => life.sharer!.framesSent),
      this.#goal(life, 'receives', () => life.sharer!.framesReceived),
    ]);
  }

  #goal(life: GuestLife, what: string, count: () => number): Progress {
    return { life, what, count, aim: count() + PROGRESS_FRAMES };
  }

  #isPresent(life: GuestLife): boolean {
    const { domid } = life.guest;
    return this.population.life(domid) === life && this.#world.runs(domid);
  }

  async #releaseKeys(): Promise<void> {
    const down = () => this.population.lives.filter(({ keysDown }) => keysDown > 0);
    const missing = () => down().map(({ guest }) => `keys are down in domain ${guest.domid}`);
    this.#backend.stopTyping(this.population.lives.map(({ guest }) => guest.domid));
    const what = 'every key is up when nobody types';
    await this.#reach(() => down().length === 0, { what, withinMs: KEYS_MS, missing });
  }

  async #end(): Promise<void> {
    const { host, runtime } = this.#world;
    const done = { what: 'the toolstack has done what it was about', withinMs: END_MS };
    await this.#reach(() => this.#fate.toolstackRests, done);
    this.population.close();
    for (const guest of host.guests) this.#inBackground(guest.destroy());
    const gone = { what: 'every guest is gone', withinMs: END_MS };
    await this.#reach(() => host.guests.length === 0, gone);
    const rows = () => this.#backend.daemon?.status().guests ?? [];
    const forgotten = () => this.#backend.daemon !== undefined && rows().length === 0;
    const remembered = () => rows().map((row) => JSON.stringify(row));
    const emptied = { what: 'the daemon holds nothing of them', withinMs: END_MS };
    await this.#reach(forgotten, { ...emptied, missing: remembered });
    const closed = this.#watched(this.#backend.close());
    const left = () => leakReport(host.hypervisor.books());
    const over = () => closed() && this.#backend.clean && left().length === 0;
    await this.#reach(over, { what: 'nothing is left', withinMs: END_MS, missing: left });
    if (this.violation) return;
    const off = this.#watched(Promise.resolve(host[Symbol.asyncDispose]()));
    const switchedOff = () => off() || this.violation !== undefined;
    await runtime.runUntil(switchedOff, { what: 'the machine is off' });
  }

  /** Steps until `condition` holds; a world that stands still, or takes too long, is a finding. */
  async #reach(condition: () => boolean, { what, withinMs, missing }: Goal): Promise<void> {
    if (this.violation) return;
    const { runtime } = this.#world;
    const untilMs = runtime.nowMs() + withinMs;
    const done = () => this.#look() || condition() || runtime.nowMs() > untilMs;
    try {
      await runtime.runUntil(done, { what, maxSteps: PHASE_STEPS_MAX });
    } catch (error) {
      // A world in which nothing happens any more is judged below; anything else was thrown by a task.
      const stopped = messageOf(error).startsWith(WORLD_STOPPED);
      this.#findings.hold(stopped, 'defect', () => messageOf(error));
    }
    const invariant = withinMs === END_MS ? 'left-behind' : 'honest-guest-progress';
    this.#findings.hold(this.violation !== undefined || condition(), invariant, () => {
      const why = missing?.().join('; ') ?? '';
      return `it did not come to this within ${withinMs} ms: ${what} (${why})`;
    });
  }

  /** Looks at everything that may have changed in this step. @returns whether something does not hold */
  #look(): boolean {
    const { runtime, trace, rings, oracle } = this.#world;
    trace.step(runtime.nowMs(), runtime.runnable);
    for (const ring of rings) ring.look();
    if (oracle.check()) this.#lookAtLedger();
    this.#lookAtScreens();
    return this.violation !== undefined;
  }

  /** A domain that is over has no pages any more. */
  #forgetRings(domid: DomId): void {
    const { rings } = this.#world;
    for (const ring of rings) {
      if (ring.domid === domid && !this.#world.runs(domid)) rings.delete(ring);
    }
  }

  #lookAtLedger(): void {
    const { ledger, quiet, clean } = this.#backend;
    if (ledger && clean) this.#ledger.check(ledger, { quiet });
  }

  /** On the screens of guests that keep the rules is what they drew, and nothing else. */
  #lookAtScreens(): void {
    for (const screen of this.#backend.screens) {
      const { domid, index } = screen.info;
      if (!this.population.life(domid)?.honest) continue;
      const pixel = firstPixel(screen) ?? 0;
      this.#findings.hold(isMarkOf(domid, pixel), 'foreign-picture', () => {
        return `domain ${domid}, connector ${index} shows ${pixel.toString(16)}`;
      });
    }
  }

  /** Says when it is done. */
  #watched(work: Promise<void>): () => boolean {
    this.#inBackground(work);
    return settled(work);
  }

  #inBackground(work: Promise<void>): void {
    work.catch((error: unknown) => {
      this.#findings.hold(false, 'defect', () => messageOf(error));
    });
  }
}

/** What a world is to come to. */
interface Goal {
  readonly what: string;
  /** Virtual time that it may take. */
  readonly withinMs: number;
  /** What it has not come to, when it is late. */
  readonly missing?: () => readonly string[];
}

/** How far somebody who keeps the rules has to get. */
interface Progress {
  readonly life: GuestLife;
  readonly what: string;
  readonly count: () => number;
  readonly aim: number;
}

interface Parts {
  readonly plan: Plan;
  readonly defects: Defects;
  readonly omitted: ReadonlySet<string>;
  readonly acts: ReadonlySet<string>;
}

function settled(promise: Promise<unknown>): () => boolean {
  let over = false;
  const settle = () => {
    over = true;
  };
  promise.then(settle, settle);
  return () => over;
}

/** A logger to which an error that only a bug can cause is a finding. */
function defectLogger(findings: Findings): Logger {
  const write = (line: string) => {
    const { msg, err } = JSON.parse(line) as {
      msg: string;
      err?: { type: string; message: string };
    };
    const bug = (err && BUG_TYPES.has(err.type)) || /defect of ours|lost to a bug/.test(msg);
    findings.hold(!bug, 'defect', () => `${msg}: ${err?.message}`);
  };
  return pino({ level: 'error' }, { write });
}
