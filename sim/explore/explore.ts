// Every course that a small world can take: depth first over the choices of what happens next. A world cannot be
// copied, so each branch is reached by making the same choices again from the start; from a state whose
// fingerprint was seen before nothing is done.
//
// What this proves, and what not: what suspended functions hold in their variables is not in a fingerprint, only what
// they wait for, by the calls that led there, and what they have changed in the world. States that are the same in
// all of that are taken for one. `everyCourse` does without it, for worlds that are small enough.

import type { Move } from './chosen-runtime.ts';
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
  /** Goes on from a state also when another course was there before: the same states must come of it. */
  readonly everyCourse?: boolean;
  readonly onProgress?: (states: number) => void;
}

/** States between two calls of `onProgress`. */
const PROGRESS_STATES = 1000;

export async function explore(options: ExploreOptions): Promise<Exploration> {
  return new Explorer(options).run();
}

/** A way not taken yet. */
interface Branch {
  /** By their number among the moves of each state. */
  readonly choices: readonly number[];
  /** The states on the way, where every course is taken. */
  readonly passed: readonly string[];
}

class Explorer {
  readonly #options: ExploreOptions;
  readonly #seen = new Set<string>();
  readonly #branches: Branch[] = [{ choices: [], passed: [] }];
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
  async #follow({ choices, passed }: Branch): Promise<void> {
    using world = await ExploredWorld.start(this.#options);
    const course = new Course(world, passed);
    for (const choice of choices) await course.choose(choice);
    if (choices.length > 0) this.#transitions += 1;
    // What is wrong on the way to a known state is wrong.
    while (this.#isRight(world.violations(), course) && this.#isNew(course)) {
      const { length } = world.moves();
      if (length === 0) {
        this.#ends += 1;
        this.#isRight(await world.remains(), course);
        return;
      }
      for (let other = length - 1; other > 0; other--) {
        this.#branches.push(course.branch(other));
      }
      await course.choose(0);
      this.#transitions += 1;
      this.#depth = Math.max(this.#depth, course.choices.length);
    }
  }

  /** Whether to go on from here; where each course is taken, one that has come round is at its end. */
  #isNew(course: Course): boolean {
    const { statesMax, onProgress, everyCourse = false } = this.#options;
    const fingerprint = course.world.fingerprint();
    const { size: before } = this.#seen;
    const { size } = this.#seen.add(fingerprint);
    if (everyCourse && !course.passes(fingerprint)) return false;
    if (size === before) return everyCourse;
    if (size > statesMax) throw new Error(`more than ${statesMax} states`);
    if (size % PROGRESS_STATES === 0) onProgress?.(size);
    return true;
  }

  #isRight(rules: readonly string[], course: Course): boolean {
    const broken = [...rules, ...this.#rejections];
    if (broken.length > 0) this.#failure = { course: course.names, broken };
    return broken.length === 0;
  }
}

/** What was chosen in one world, from its start on. */
class Course {
  readonly world: ExploredWorld;
  readonly choices: number[] = [];
  readonly #moves: Move[] = [];
  readonly #passed: Set<string>;

  constructor(world: ExploredWorld, passed: readonly string[]) {
    this.world = world;
    this.#passed = new Set(passed);
  }

  /** The way on from here by another choice. */
  branch(choice: number): Branch {
    return { choices: [...this.choices, choice], passed: [...this.#passed] };
  }

  /** For people, and slow: a task is named by the calls that led to it. */
  get names(): string[] {
    return this.#moves.map(({ name }) => name);
  }

  async choose(choice: number): Promise<void> {
    const move = choice === 0 ? this.world.firstMove() : this.world.moves()[choice];
    this.choices.push(choice);
    this.#moves.push(move!);
    await this.world.step(move!);
  }

  /** Notes a state. @returns false when the course was there before */
  passes(fingerprint: string): boolean {
    const { size } = this.#passed;
    return this.#passed.add(fingerprint).size > size;
  }
}
