// A runtime in which nothing happens by itself: whoever explores chooses what runs next, a task that could run or
// the time's going on to the next timer.
//
// Invariant: what is on offer is a function of what was chosen before, and of nothing else.

import { type Random, SeededRandom } from '../../src/runtime/random.ts';
import { type Logger, type Runtime, silentLogger, type Timer } from '../../src/runtime/runtime.ts';

interface Task {
  readonly label: string;
  readonly run: () => void;
}

interface Waiting extends Task {
  readonly atMs: number;
}

export class ChoiceRuntime implements Runtime {
  readonly random: Random = new SeededRandom(1);
  readonly log: Logger = LOG;
  readonly #tasks: Task[] = [];
  readonly #timers = new Set<Waiting>();
  #nowMs = 0;

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, run: () => void): Timer {
    const waiting = { atMs: this.#nowMs + delayMs, label: `${delayMs} ms`, run };
    this.#timers.add(waiting);
    return { cancel: () => void this.#timers.delete(waiting) };
  }

  defer(run: () => void): void {
    this.add('a turn', run);
  }

  /** Something that could run now. */
  add(label: string, run: () => void): void {
    this.#tasks.push({ label, run });
  }

  /** Resolves when somebody chooses `label`. */
  step(label: string): Promise<void> {
    return new Promise((resolve) => this.add(label, resolve));
  }

  /** What could be chosen: each label once, in order; `time` when a timer waits and none of our own calls does. */
  get offers(): string[] {
    const labels = [...new Set(this.#tasks.map(({ label }) => label))].sort();
    const waits = this.#timers.size > 0 && labels.every((label) => label.startsWith(OTHERS));
    return waits ? [...labels, 'time'] : labels;
  }

  choose(label: string): void {
    if (label === 'time') {
      this.#expire();
      return;
    }
    const at = this.#tasks.findIndex((task) => task.label === label);
    this.#tasks.splice(at, 1)[0]!.run();
  }

  /** Everything that waits, for the state: tasks by label, timers by the time that is left. */
  get pending(): readonly string[] {
    const timers = [...this.#timers].map(({ atMs, label }) => `${label} in ${atMs - this.#nowMs}`);
    return [...this.#tasks.map(({ label }) => label).sort(), ...timers.sort()];
  }

  #expire(): void {
    this.#nowMs = Math.min(...[...this.#timers].map(({ atMs }) => atMs));
    for (const timer of [...this.#timers]) {
      if (timer.atMs > this.#nowMs) continue;
      this.#timers.delete(timer);
      timer.run();
    }
  }
}

const LOG = silentLogger();
/** How the labels of what others do begin, for which time does not wait; it waits for our own calls. */
export const OTHERS = 'output ';
