// A program that can be killed: its runtime, and what its kernel keeps for it.
//
// Invariants: after `kill` no line of the program runs any more: its timers and tasks do nothing, and what it
// waits for never comes. Everything that its kernel held for it is given back by the kernel, which tries
// again for as long as another domain has not let go.

import type { Random } from '../src/runtime/random.ts';
import type { Logger, Runtime, Timer } from '../src/runtime/runtime.ts';

/** One thing that the kernel gives back when its program is gone. */
export interface KernelObject {
  /** Closed when the memory is gone already, as a process's files are (exit_mm before exit_files). */
  readonly file?: true;
  /** One try; false while somebody else still has it. */
  release(): Promise<boolean>;
}

/** Time between two tries of the kernel. */
const KERNEL_RETRY_MS = 100;

const NO_TIMER: Timer = { cancel: () => {} };

export interface ProgramOptions {
  /** The world's. */
  readonly runtime: Runtime;
  readonly random: Random;
  readonly log: Logger;
  /** Told of each call before it is made: it may kill the program, or throw what the call is to throw. */
  readonly onCall?: (name: string) => void;
}

export class Program implements Runtime {
  readonly random: Random;
  readonly log: Logger;
  readonly #runtime: Runtime;
  readonly #onCall: (name: string) => void;
  readonly #objects = new Set<KernelObject>();
  #alive = true;
  #busy = 0;

  constructor({ runtime, random, log, onCall = () => {} }: ProgramOptions) {
    this.#runtime = runtime;
    this.#onCall = onCall;
    this.random = random;
    this.log = log;
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Calls of the program's that its kernel has not come back from. */
  get busy(): number {
    return this.#busy;
  }

  /** Things that the kernel keeps for the program, living or dead. */
  get held(): number {
    return this.#objects.size;
  }

  nowMs(): number {
    return this.#runtime.nowMs();
  }

  wallMs(): number {
    return this.#runtime.wallMs();
  }

  after(delayMs: number, task: () => void): Timer {
    return this.#alive ? this.#runtime.after(delayMs, () => this.run(task)) : NO_TIMER;
  }

  defer(task: () => void): void {
    if (this.#alive) this.#runtime.defer(() => this.run(task));
  }

  /** Runs a piece of the program, unless it is dead. */
  run(task: () => void): void {
    if (this.#alive) task();
  }

  /** The program is about to call its kernel. @returns false when it does not come to that any more */
  calls(name: string): boolean {
    if (this.#alive) this.#onCall(name);
    return this.#alive;
  }

  /** A call of the program's into its kernel: a dead program makes none, and does not hear how one went. */
  call<T>(name: string, make: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (!this.calls(name)) return;
      this.#busy += 1;
      make().then(
        (result) => this.#back(() => resolve(result)),
        (error: unknown) => this.#back(() => reject(error)),
      );
    });
  }

  /** The kernel keeps it for the program from now on; what comes for a dead one is given back at once. */
  keep(object: KernelObject): void {
    this.#objects.add(object);
    if (!this.#alive) void this.#giveBack(object);
  }

  /** The program has given it back itself. */
  drop(object: KernelObject): void {
    this.#objects.delete(object);
  }

  /** The program ends here and now. */
  kill(): void {
    if (!this.#alive) return;
    this.#alive = false;
    void this.#exit([...this.#objects].reverse());
  }

  /** Memory goes first, so that its farewells are heard over channels that are files. */
  async #exit(objects: readonly KernelObject[]): Promise<void> {
    const memory = objects.filter(({ file }) => !file);
    await Promise.all(memory.map((object) => this.#giveBack(object)));
    for (const object of objects) if (object.file) void this.#giveBack(object);
  }

  #back(settle: () => void): void {
    this.#busy -= 1;
    this.run(settle);
  }

  async #giveBack(object: KernelObject): Promise<void> {
    const done = await object.release().catch(() => false);
    if (done) this.#objects.delete(object);
    else this.#runtime.after(KERNEL_RETRY_MS, () => void this.#giveBack(object));
  }
}
