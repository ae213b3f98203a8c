// The front door for time, chance, scheduling and logging (law 8): everything non-deterministic that
// the product uses is a member of `Runtime`, so the same code runs on the system or in a seeded world.

import { performance } from 'node:perf_hooks';
import pino, { type Logger } from 'pino';
import { type Random, SystemRandom } from './random.ts';

export type { Logger } from 'pino';

/** A task that waits for its time; disposing it twice, or after it ran, does nothing. */
export interface Timer {
  cancel(): void;
}

export interface Runtime {
  /** Monotonic milliseconds since an arbitrary start; fractions allowed. */
  nowMs(): number;
  /** Milliseconds since the Unix epoch, for people to read, never for measuring. */
  wallMs(): number;
  /** Runs `task` once, `delayMs` from now. */
  after(delayMs: number, task: () => void): Timer;
  /** Runs `task` soon, after everything that is already runnable. */
  defer(task: () => void): void;
  readonly random: Random;
  readonly log: Logger;
}

class SystemRuntime implements Runtime {
  readonly random = new SystemRandom();
  readonly log: Logger;

  constructor(log: Logger) {
    this.log = log;
  }

  nowMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  after(delayMs: number, task: () => void): Timer {
    const handle = setTimeout(task, delayMs);
    return { cancel: () => clearTimeout(handle) };
  }

  defer(task: () => void): void {
    setImmediate(task);
  }
}

/** A logger that writes JSON lines to stderr; stdout stays free for facts. */
export function stderrLogger(level: pino.LevelWithSilent): Logger {
  return pino({ level }, pino.destination({ dest: 2, sync: true }));
}

/** A logger that says nothing, for tests and benchmarks. */
export function silentLogger(): Logger {
  return pino({ level: 'silent' });
}

/** The real clock, the real timers, the system's random numbers. */
export function systemRuntime(log: Logger = silentLogger()): Runtime {
  return new SystemRuntime(log);
}

/** Resolves when everything that is runnable now has had its turn. */
export function turn(runtime: Runtime): Promise<void> {
  return new Promise((resolve) => runtime.defer(resolve));
}

/** Resolves after `delayMs`; rejects with the signal's reason when it is aborted first. */
export function sleep(runtime: Runtime, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const onAbort = () => {
      timer.cancel();
      reject(signal?.reason);
    };
    const timer = runtime.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** The longest delay of a system timer, some 25 days; a longer one would go off at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * The value of `promise`, or a rejection with `onTimeout()` when it takes longer than `timeoutMs`; a time beyond
 * LONGEST_TIMER_MS, Infinity included, is no bound. The promise itself goes on: whoever made it stays responsible for its result.
 */
export async function withTimeout<T>(
  runtime: Runtime,
  promise: Promise<T>,
  { timeoutMs, onTimeout }: { timeoutMs: number; onTimeout: () => Error },
): Promise<T> {
  if (timeoutMs > LONGEST_TIMER_MS) return promise;
  let timer: Timer | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = runtime.after(timeoutMs, () => reject(onTimeout()));
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    timer?.cancel();
  }
}

/** Asks `condition` every `intervalMs` until it holds; rejects after `timeoutMs` naming `what`. */
export async function until(
  runtime: Runtime,
  condition: () => boolean | Promise<boolean>,
  { what, timeoutMs = 10_000, intervalMs = 5 }: UntilOptions,
): Promise<void> {
  const deadlineMs = runtime.nowMs() + timeoutMs;
  while (!(await condition())) {
    if (runtime.nowMs() > deadlineMs) throw new Error(`gave up after ${timeoutMs} ms: ${what}`);
    await sleep(runtime, intervalMs);
  }
}

export interface UntilOptions {
  /** What is waited for, for the message of the rejection. */
  readonly what: string;
  readonly timeoutMs?: number;
  readonly intervalMs?: number;
}
