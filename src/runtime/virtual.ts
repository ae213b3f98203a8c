// A runtime whose time stands still until it is told to go on, and whose order of tasks follows from a
// seed: the scheduler of deterministic tests and of the simulation.
//
// Invariants: tasks run one at a time, each followed by every promise reaction it caused; time moves
// only when nothing is runnable, straight to the next timer; of the runnable tasks a random one runs.
//
// A step costs one immediate of Node's: between two immediates of one turn of the event loop Node runs all
// promise reactions, so many steps fit into a turn, and nothing is polled in between.

import { type Random, SeededRandom } from './random.ts';
import { type Logger, type Runtime, silentLogger, type Timer } from './runtime.ts';
import { TimerQueue } from './timer-queue.ts';

export class VirtualRuntime implements Runtime {
  readonly random: Random;
  readonly log: Logger;
  #nowMs = 0;
  #steps = 0;
  readonly #runnable: (() => void)[] = [];
  readonly #timers = new TimerQueue();

  /** The same seed, and the same tasks, give the same order. */
  constructor(seed: number, log: Logger = silentLogger()) {
    this.random = new SeededRandom(seed);
    this.log = log;
  }

  /** Tasks that have run. */
  get steps(): number {
    return this.#steps;
  }

  /** Tasks that could run now. */
  get runnable(): number {
    return this.#runnable.length;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return EPOCH_WALL_MS + this.#nowMs;
  }

  after(delayMs: number, task: () => void): Timer {
    return this.#timers.add(this.#nowMs + Math.max(0, delayMs), task);
  }

  defer(task: () => void): void {
    this.#runnable.push(task);
  }

  /**
   * Runs one task and all promise reactions that follow; false when nothing is left to run.
   * Time jumps to the next timer when no task is runnable.
   */
  async step(): Promise<boolean> {
    await settle();
    const ran = this.#runOne();
    if (ran) await settle();
    return ran;
  }

  /**
   * Steps until `condition`, which is asked between any two steps, holds.
   * @throws Error when nothing is left to run or `maxSteps` are over before it does
   * @throws what a task or `condition` throws
   */
  runUntil(
    condition: () => boolean,
    { what, maxSteps = DEFAULT_MAX_STEPS }: RunOptions,
  ): Promise<void> {
    const lastStep = this.#steps + maxSteps;
    /** @returns whether there is to be another turn */
    const turn = (): boolean => {
      if (condition()) return false;
      if (this.#steps < lastStep && this.#runOne()) return true;
      throw new Error(`the virtual world stopped before: ${what}`);
    };
    return inImmediates(turn);
  }

  #runOne(): boolean {
    if (this.#runnable.length === 0) this.#expireNextTimers();
    const count = this.#runnable.length;
    if (count === 0) return false;
    const chosen = this.random.below(count);
    const task = this.#runnable[chosen]!;
    const last = this.#runnable.pop()!;
    if (chosen < count - 1) this.#runnable[chosen] = last;
    this.#steps += 1;
    task();
    return true;
  }

  #expireNextTimers(): void {
    const nextMs = this.#timers.nextMs;
    if (nextMs === undefined) return;
    this.#nowMs = nextMs;
    for (let task = this.#timers.take(nextMs); task; task = this.#timers.take(nextMs)) {
      this.#runnable.push(task);
    }
  }
}

export interface RunOptions {
  /** What is waited for, for the message of the error. */
  readonly what: string;
  readonly maxSteps?: number;
}

const DEFAULT_MAX_STEPS = 100_000;

/** Wall time at virtual zero: the day of the thread that the product comes from (2018-04-20 UTC). */
const EPOCH_WALL_MS = Date.UTC(2018, 3, 20);

/** Immediates that are queued for one turn of the event loop; I/O has its chance between two of them. */
const IMMEDIATES_MAX = 64;

/** Lets every promise reaction run: a macrotask comes only after the microtask queue is empty. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Calls `turn` with every promise reaction done before each call, until it returns false or throws. */
function inImmediates(turn: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    let queued = 0;
    let batch = 1;
    let over = false;
    const call = (): void => {
      queued -= 1;
      if (over) return;
      try {
        over = !turn();
        if (over) resolve();
        else if (queued === 0) queue();
      } catch (error) {
        over = true;
        reject(error);
      }
    };
    /** More at a time as it goes on: a run that is short leaves few behind that have nothing to do. */
    const queue = (): void => {
      for (; queued < batch; queued++) setImmediate(call);
      batch = Math.min(batch * 2, IMMEDIATES_MAX);
    };
    queue();
  });
}
