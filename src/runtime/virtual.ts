// A runtime whose time stands still until it is told to go on, and whose order of tasks follows from a
// seed: the scheduler of deterministic tests and of the simulation.
//
// Invariants: tasks run one at a time, each followed by every promise reaction it caused; time moves
// only when nothing is runnable, straight to the next timer; of the runnable tasks a random one runs.

import { type Random, SeededRandom } from './random.ts';
import { type Logger, type Runtime, silentLogger, type Timer } from './runtime.ts';

interface PendingTimer {
  readonly atMs: number;
  readonly task: () => void;
}

export class VirtualRuntime implements Runtime {
  readonly random: Random;
  readonly log: Logger = silentLogger();
  #nowMs = 0;
  readonly #runnable: (() => void)[] = [];
  readonly #timers = new Set<PendingTimer>();

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return EPOCH_WALL_MS + this.#nowMs;
  }

  after(delayMs: number, task: () => void): Timer {
    const timer = { atMs: this.#nowMs + Math.max(0, delayMs), task };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
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
    if (this.#runnable.length === 0) this.#expireNextTimers();
    if (this.#runnable.length === 0) return false;
    const [task] = this.#runnable.splice(this.random.below(this.#runnable.length), 1);
    task!();
    await settle();
    return true;
  }

  /** Steps until `condition` holds; throws when nothing is left to run or `maxSteps` are over. */
  async runUntil(
    condition: () => boolean,
    { what, maxSteps = 100_000 }: RunOptions,
  ): Promise<void> {
    for (let step = 0; step < maxSteps; step++) {
      await settle();
      if (condition()) return;
      if (!(await this.step())) break;
    }
    await settle();
    if (!condition()) throw new Error(`the virtual world stopped before: ${what}`);
  }

  #expireNextTimers(): void {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const { atMs } of this.#timers) nextMs = Math.min(nextMs, atMs);
    if (nextMs === Number.POSITIVE_INFINITY) return;
    this.#nowMs = nextMs;
    for (const timer of this.#timers) {
      if (timer.atMs > nextMs) continue;
      this.#timers.delete(timer);
      this.#runnable.push(timer.task);
    }
  }
}

export interface RunOptions {
  /** What is waited for, for the message of the error. */
  readonly what: string;
  readonly maxSteps?: number;
}

/** Wall time at virtual zero: the day of the thread that the product comes from (2018-04-20 UTC). */
const EPOCH_WALL_MS = Date.UTC(2018, 3, 20);

/** Lets every promise reaction run: a macrotask comes only after the microtask queue is empty. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
