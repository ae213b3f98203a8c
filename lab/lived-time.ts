// Time as this process has lived through it, for everything that waits for the machine: while this computer is
// suspended, or this process is stopped, QEMU stands still as well, and dom0 is not silent. The clock goes on meanwhile
// (a virtual machine's that is suspended does), and every timer would go off when it is over.
//
// Invariants: time never goes faster than the clock, never back; between two looks at the clock it moves by
// LONGEST_STEP_MS at most, and while anybody waits there is a look every BEAT_MS. A task never runs before its delay has been
// lived through. With nobody waiting for longer than LONGEST_STEP_MS time falls behind the clock: it bounds waits, and
// is not for measuring.
import type { Runtime, Timer } from '../src/runtime/runtime.ts';

/** How often the clock is looked at while somebody waits. */
const BEAT_MS = 1_000;
/** A busy computer lets a process wait for some beats; more than this nobody has lived through. */
const LONGEST_STEP_MS = 5_000;

/** A runtime whose time leaves out what this process did not live through. */
export class LivedRuntime implements Runtime {
  readonly random: Runtime['random'];
  readonly log: Runtime['log'];
  readonly #system: Runtime;
  #seenMs: number;
  #livedMs = 0;

  constructor(system: Runtime) {
    this.#system = system;
    this.random = system.random;
    this.log = system.log;
    this.#seenMs = system.nowMs();
  }

  /** Milliseconds lived through since this runtime was made. */
  nowMs(): number {
    const nowMs = this.#system.nowMs();
    this.#livedMs += Math.min(nowMs - this.#seenMs, LONGEST_STEP_MS);
    this.#seenMs = nowMs;
    return this.#livedMs;
  }

  wallMs(): number {
    return this.#system.wallMs();
  }

  after(delayMs: number, task: () => void): Timer {
    const dueMs = this.nowMs() + delayMs;
    let waiting: Timer;
    const wait = () => {
      const leftMs = dueMs - this.nowMs();
      waiting = this.#system.after(Math.max(0, Math.min(leftMs, BEAT_MS)), look);
    };
    const look = () => {
      if (this.nowMs() < dueMs) wait();
      else task();
    };
    wait();
    return { cancel: () => waiting.cancel() };
  }

  defer(task: () => void): void {
    this.#system.defer(task);
  }
}
