// Time as this process has lived through it, for everything that waits for the machine: while this computer is
// suspended, or this process is stopped, QEMU stands still as well, and dom0 is not silent. The clock goes on meanwhile
// (a virtual machine's that is suspended does, and with it dom0's), and every timer would go off when it is over.
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

/** What waits are made of. */
export type Clock = Pick<Runtime, 'nowMs' | 'after'>;

/** A clock whose time leaves out what this process did not live through. */
export class LivedClock implements Clock {
  readonly #system: Clock;
  #seenMs: number;
  #livedMs = 0;

  constructor(system: Clock) {
    this.#system = system;
    this.#seenMs = system.nowMs();
  }

  /** Milliseconds lived through since this clock was made. */
  nowMs(): number {
    const nowMs = this.#system.nowMs();
    this.#livedMs += Math.min(nowMs - this.#seenMs, LONGEST_STEP_MS);
    this.#seenMs = nowMs;
    return this.#livedMs;
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
}

/** A runtime whose time is lived through; the time of day, chance and the log are the system's. */
export function livedRuntime(system: Runtime): Runtime {
  const clock = new LivedClock(system);
  return {
    nowMs: () => clock.nowMs(),
    after: (delayMs, task) => clock.after(delayMs, task),
    wallMs: () => system.wallMs(),
    defer: (task) => system.defer(task),
    random: system.random,
    log: system.log,
  };
}
