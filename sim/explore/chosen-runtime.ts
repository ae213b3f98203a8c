// A runtime in which nothing happens but what is chosen: every task that could run next is a move, and so is
// the passing of time to the next timer when no task is left. The search of explore.ts chooses.
//
// Invariants: a move runs one task and all promise reactions that it causes; time moves only when no task
// is runnable, as in every virtual world (runtime/virtual.ts). A task is known by its owner and by the
// calls, asynchronous ones included, that led to it: two tasks of the same name wait at the same place of
// the same code.

import assert from 'node:assert/strict';
import pino from 'pino';
import { SeededRandom } from '../../src/runtime/random.ts';
import type { Logger, Runtime, Timer } from '../../src/runtime/runtime.ts';

/** One thing that can happen next. */
export interface Move {
  /** Who does it, and what: the same in every run that gets there, and different from every other move. */
  readonly name: string;
  readonly run: () => void;
}

/** A task that may run, or will at its time. */
class PendingTask {
  readonly owner: string;
  readonly task: () => void;
  /** Of a timer. */
  readonly atMs: number;
  readonly #scheduled = errorHere();
  #name: string | undefined;

  constructor(owner: string, task: () => void, atMs = 0) {
    this.owner = owner;
    this.task = task;
    this.atMs = atMs;
  }

  /** Made when it is asked for: most tasks run unasked, on the way to a branch. */
  get name(): string {
    this.#name ??= `${this.owner}: ${callsOf(this.#scheduled)}`;
    return this.#name;
  }
}

/** Frames of a call stack that name a task. */
const NAME_FRAMES = 24;

export class ChosenTime {
  /** What anybody logged as a defect of ours, which is what has an `err`. */
  readonly complaints: string[] = [];
  #nowMs = 0;
  readonly #runnable = new Set<PendingTask>();
  readonly #timers = new Set<PendingTask>();
  readonly #dead = new Set<string>();
  readonly #log: Logger = pino({ level: 'error' }, { write: (line: string) => this.#hear(line) });

  /** The runtime of one owner of tasks. */
  runtime(owner: string): Runtime {
    return {
      nowMs: () => this.#nowMs,
      wallMs: () => this.#nowMs,
      after: (delayMs, task) => this.#after(owner, { delayMs, task }),
      defer: (task) => {
        if (!this.#dead.has(owner)) this.#runnable.add(new PendingTask(owner, task));
      },
      random: new SeededRandom(1),
      log: this.#log,
    };
  }

  /** The tasks of `owner` never run: it was killed. */
  kill(owner: string): void {
    this.#dead.add(owner);
    for (const pending of this.#runnable)
      if (pending.owner === owner) this.#runnable.delete(pending);
    for (const timer of this.#timers) if (timer.owner === owner) this.#timers.delete(timer);
  }

  get quiet(): boolean {
    return this.#runnable.size === 0;
  }

  /** What can happen next; tasks that are the same by name count once. */
  moves(): Move[] {
    if (this.#runnable.size > 1) return this.#tasks();
    const move = this.first();
    return move === undefined ? [] : [move];
  }

  /** The first of these, without a look at the others. */
  first(): Move | undefined {
    for (const pending of this.#runnable) return this.#move(pending);
    const nextMs = this.#nextMs();
    return nextMs === undefined
      ? undefined
      : { name: 'time passes', run: () => this.#advance(nextMs) };
  }

  #tasks(): Move[] {
    const tasks = new Map<string, Move>();
    for (const pending of this.#runnable) {
      const { name } = pending;
      if (!tasks.has(name)) tasks.set(name, this.#move(pending));
    }
    return [...tasks.values()];
  }

  #move(pending: PendingTask): Move {
    return {
      get name() {
        return pending.name;
      },
      run: () => this.#run(pending),
    };
  }

  /** What is still to happen, as text: tasks by name, timers by name and the time that they have left. */
  describe(): string[] {
    const tasks = [...this.#runnable].map(({ name }) => name);
    const timers = [...this.#timers].map(
      ({ name, atMs }) => `in ${(atMs - this.#nowMs).toFixed(3)} ms ${name}`,
    );
    return [...tasks.sort(), ...timers.sort()];
  }

  #hear(line: string): void {
    const { err } = JSON.parse(line) as { err?: { stack?: string } };
    if (err !== undefined) this.complaints.push(err.stack ?? line);
  }

  #after(owner: string, { delayMs, task }: { delayMs: number; task: () => void }): Timer {
    if (this.#dead.has(owner)) return { cancel: () => {} };
    const timer = new PendingTask(owner, task, this.#nowMs + Math.max(0, delayMs));
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  #run(pending: PendingTask): void {
    assert(this.#runnable.delete(pending), `${pending.name} has run already`);
    pending.task();
  }

  #nextMs(): number | undefined {
    let nextMs: number | undefined;
    for (const { atMs } of this.#timers) nextMs = Math.min(nextMs ?? atMs, atMs);
    return nextMs;
  }

  #advance(nextMs: number): void {
    this.#nowMs = nextMs;
    for (const timer of this.#timers) {
      if (timer.atMs > nextMs) continue;
      this.#timers.delete(timer);
      this.#runnable.add(timer);
    }
  }
}

/** Remembers the calls that led here; naming them is another matter. */
function errorHere(): Error {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = NAME_FRAMES;
  const error = new Error();
  Error.stackTraceLimit = stackTraceLimit;
  return error;
}

/** The functions that led there, the nearest first, without those of the search itself and of Node's own. */
function callsOf({ stack }: Error): string {
  const frames = stack!.split('\n').slice(1).map(frameName);
  return frames.filter((name) => name !== undefined).join(' < ');
}

const SEARCH = /\/(chosen-runtime|explored-world|explore)\.[jt]s:/;
const FRAME = /^\s*at (?:(.*?) \()?(?:file:\/\/)?(?:.*\/)?([^/)]+:\d+:\d+)\)?$/;
const frameNames = new Map<string, string | undefined>();

function frameName(line: string): string | undefined {
  if (frameNames.has(line)) return frameNames.get(line);
  const match = FRAME.exec(line);
  const name =
    match === null || SEARCH.test(line) || line.includes('node:')
      ? undefined
      : `${match[1] ?? ''}@${match[2]}`;
  frameNames.set(line, name);
  return name;
}
