// Every course that a small world can take: depth first over the choices of what happens next. A world cannot be
// copied, so each branch is reached by making the same choices again from the start; from a state whose
// fingerprint was seen before nothing is done.
//
// What this proves, and what not: what suspended functions hold in their variables is not in a fingerprint, only what
// they wait for, by the calls that led there, and what they have changed in the world. States that are the same in
// all of that are taken for one. `everyCourse` does without it, for worlds that are small enough.

import { ExploredWorld, type WorldOptions } from './explored-world.ts';

export interface Exploration {
  /** Different states that were reached. */
  readonly states: number;
  /** Steps from a state to a state, those to a state that was known included. */
  readonly transitions: number;
  /** States in which nothing can happen any more. */
  readonly ends: number;
  /** The longest course, in steps. */
  readonly depth: number;
  /** The first course on which a rule was broken. */
  readonly failure:
    | { readonly course: readonly string[]; readonly broken: readonly string[] }
    | undefined;
}

export interface ExploreOptions extends WorldOptions {
  /** @throws Error beyond so many states */
  readonly statesMax: number;
  /** Goes on from a state also when it was seen before: the same states must come of it. */
  readonly everyCourse?: boolean;
  readonly onProgress?: (states: number) => void;
}

/** States between two calls of `onProgress`. */
const PROGRESS_STATES = 1000;

export async function explore(options: ExploreOptions): Promise<Exploration> {
  return new Explorer(options).run();
}

class Explorer {
  readonly #options: ExploreOptions;
  readonly #seen = new Set<string>();
  /** Choices that lead to a branch not taken yet, by their number among the moves. */
  readonly #branches: number[][] = [[]];
  /** Rejections that nobody handled: in the product they would end the process. */
  readonly #rejections: string[] = [];
  readonly #onRejection = (reason: unknown) => {
    this.#rejections.push(`nobody handled: ${String(reason)}`);
  };
  #transitions = 0;
  #ends = 0;
  #depth = 0;
  #failure: Exploration['failure'];

  constructor(options: ExploreOptions) {
    this.#options = options;
  }

  async run(): Promise<Exploration> {
    process.on('unhandledRejection', this.#onRejection);
    try {
      return await this.#explore();
    } finally {
      process.off('unhandledRejection', this.#onRejection);
    }
  }

  async #explore(): Promise<Exploration> {
    for (let branch = this.#branches.pop(); branch; branch = this.#branches.pop()) {
      await this.#follow(branch);
      if (this.#failure !== undefined) break;
    }
    const { size: states } = this.#seen;
    const [transitions, ends, depth] = [this.#transitions, this.#ends, this.#depth];
    return { states, transitions, ends, depth, failure: this.#failure };
  }

  /** Makes the choices of a branch, then always the first, until a state comes that is known or is an end. */
  async #follow(branch: readonly number[]): Promise<void> {
    using world = await ExploredWorld.start(this.#options);
    const course: string[] = [];
    const choices = [...branch];
    const choose = async (choice: number) => {
      const move = world.moves()[choice]!;
      course.push(move.name);
      await world.step(move);
    };
    for (const choice of branch) await choose(choice);
    if (branch.length > 0) this.#transitions += 1;
    while (this.#isNew(world) && this.#isRight(world.violations(), course)) {
      const { length } = world.moves();
      if (length === 0) {
        this.#ends += 1;
        this.#isRight(await world.remains(), course);
        return;
      }
      for (let other = length - 1; other > 0; other--) this.#branches.push([...choices, other]);
      await choose(0);
      choices.push(0);
      this.#transitions += 1;
      this.#depth = Math.max(this.#depth, choices.length);
    }
  }

  #isNew(world: ExploredWorld): boolean {
    const { statesMax, onProgress } = this.#options;
    const { size: before } = this.#seen;
    const { size } = this.#seen.add(world.fingerprint());
    if (size === before) return this.#options.everyCourse ?? false;
    if (size > statesMax) throw new Error(`more than ${statesMax} states`);
    if (size % PROGRESS_STATES === 0) onProgress?.(size);
    return true;
  }

  #isRight(rules: readonly string[], course: readonly string[]): boolean {
    const broken = [...rules, ...this.#rejections];
    if (broken.length > 0) this.#failure = { course: [...course], broken };
    return broken.length === 0;
  }
}
