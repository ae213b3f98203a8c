// From a world that fails to the least of it that still does: without the guests, the kinds of faults and the single
// acts that it does not take, and not one step longer than it takes.
//
// Invariant: what is left still violates the same invariant. Whoever is left out changes nobody else's chance
// (chance.ts), so most of what remains does what it did.

import type { FaultKind } from './faults.ts';
import { FAULT_KINDS } from './faults.ts';
import type { Violation } from './findings.ts';
import { planOf } from './plan.ts';
import { liveAndEnd } from './run.ts';
import { type Defects, World } from './world.ts';

/** Worlds that are tried in one shrinking at most. */
const ATTEMPTS_MAX = 100;

export interface ShrinkOptions {
  /** Of the world. */
  readonly seed: number;
  /** Steps in which things go wrong. */
  readonly steps: number;
  readonly violation: Violation;
  readonly defects?: Defects;
}

/** The least that was found. */
export interface Shrunk {
  readonly omitted: readonly string[];
  /** Steps up to the violation. */
  readonly steps: number;
  readonly violation: Violation;
  /** The last events before it. */
  readonly trace: readonly string[];
  readonly attempts: number;
}

/** What a world came to. */
interface Outcome {
  readonly violation: Violation | undefined;
  readonly steps: number;
  readonly trace: readonly string[];
  /** Acts that were done, by name. */
  readonly acts: readonly string[];
}

export async function shrink(options: ShrinkOptions): Promise<Shrunk> {
  const shrinking = new Shrinking(options);
  await shrinking.run();
  return shrinking.result();
}

class Shrinking {
  readonly #options: ShrinkOptions;
  #omitted: ReadonlySet<string> = new Set();
  #best: Outcome;
  #attempts = 0;

  constructor(options: ShrinkOptions) {
    this.#options = options;
    const { violation, steps } = options;
    this.#best = { violation, steps, trace: [], acts: [] };
  }

  async run(): Promise<void> {
    const { seed } = this.#options;
    await this.#try(new Set(), { readable: false });
    for (const { name } of planOf(seed).guests) await this.#without([name]);
    await this.#halve([...FAULT_KINDS] satisfies FaultKind[]);
    await this.#halve(this.#best.acts);
  }

  async result(): Promise<Shrunk> {
    const outcome = await this.#live(this.#omitted, { readable: true });
    const { violation = this.#options.violation, steps, trace } = outcome;
    return { omitted: [...this.#omitted], steps, violation, trace, attempts: this.#attempts };
  }

  /** Leaves out as many of `names` as it can, in halves, and their halves. */
  async #halve(names: readonly string[]): Promise<void> {
    if (names.length === 0 || (await this.#without(names)) || names.length === 1) return;
    const middle = names.length >>> 1;
    await this.#halve(names.slice(0, middle));
    await this.#halve(names.slice(middle));
  }

  /** Leaves `names` out if the rest still fails. */
  #without(names: readonly string[]): Promise<boolean> {
    return this.#try(new Set([...this.#omitted, ...names]), { readable: false });
  }

  async #try(omitted: ReadonlySet<string>, how: { readable: boolean }): Promise<boolean> {
    if (this.#attempts >= ATTEMPTS_MAX) return false;
    const outcome = await this.#live(omitted, how);
    if (outcome.violation?.invariant !== this.#options.violation.invariant) return false;
    if (outcome.steps > this.#best.steps) return false;
    this.#omitted = omitted;
    this.#best = outcome;
    return true;
  }

  async #live(omitted: ReadonlySet<string>, { readable }: { readable: boolean }): Promise<Outcome> {
    const { seed, steps, defects } = this.#options;
    this.#attempts += 1;
    const world = await World.open({ seed, omitted, readable, ...(defects && { defects }) });
    await liveAndEnd(world, Math.min(steps, this.#best.steps));
    const { violation, trace, acts } = world;
    return { violation, steps: world.steps, trace: trace.lines, acts: [...acts] };
  }
}
