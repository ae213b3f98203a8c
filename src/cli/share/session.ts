// What every `share` command has around it: a domain to be, an end by Ctrl-C or by the loss of that domain, and
// everything closed in order.
//
// Invariant: whatever ends a command, its error is the first one; what another domain keeps of ours after we
// have left is not waited for.

import { SysError } from '../../runtime/errors.ts';
import { type Runtime, stderrLogger, systemRuntime, type Timer } from '../../runtime/runtime.ts';
import { Scope } from '../../runtime/scope.ts';
import type { LogLevel } from '../config.ts';
import { onInterruption } from '../interrupted.ts';
import { openPlace, type Place, type PlaceOptions } from './place.ts';

export interface SessionOptions extends PlaceOptions {
  readonly logLevel?: LogLevel;
}

export interface ShareContext {
  readonly runtime: Runtime;
  readonly place: Place;
  /** Owns what the command opens, in the domain. */
  readonly scope: Scope;
  /** Aborts with the reason for the command to end: `Interrupted`, or the loss of the domain. */
  readonly signal: AbortSignal;
}

/** Runs a command in its domain. @throws what it throws, or what ends it */
export async function inDomain(
  options: SessionOptions,
  command: (context: ShareContext) => Promise<void>,
): Promise<void> {
  const ending = new AbortController();
  onInterruption((why) => ending.abort(why));
  process.stdout.on('error', (error) => ending.abort(notWritten(error)));
  const runtime = new EndingRuntime(systemRuntime(stderrLogger(options.logLevel ?? 'error')));
  const scope = new Scope('share');
  const { signal } = ending;
  const failures: unknown[] = [];
  try {
    const place = scope.own(await openPlace(runtime, options));
    void place.lost.then((error) => ending.abort(error));
    signal.throwIfAborted();
    await command({ runtime, place, scope: scope.child('command'), signal });
  } catch (error) {
    failures.push(signal.aborted ? signal.reason : error);
  }
  await scope.close().catch((error: unknown) => failures.push(error));
  runtime.end();
  if (failures.length > 0) throw failures[0];
}

/** Whoever read what we print is gone. */
function notWritten({ code = 'EIO' }: NodeJS.ErrnoException): SysError {
  return new SysError({ call: 'write', errnoName: code, context: 'writing stdout' });
}

/** What is still to be tried when the command is over (asking for memory that a peer keeps) is tried no more. */
class EndingRuntime implements Runtime {
  readonly random: Runtime['random'];
  readonly log: Runtime['log'];
  readonly #system: Runtime;
  readonly #timers = new Set<Timer>();
  #over = false;

  constructor(system: Runtime) {
    this.#system = system;
    this.random = system.random;
    this.log = system.log;
  }

  nowMs(): number {
    return this.#system.nowMs();
  }

  wallMs(): number {
    return this.#system.wallMs();
  }

  after(delayMs: number, task: () => void): Timer {
    if (this.#over) return { cancel: () => {} };
    const timer = this.#system.after(delayMs, () => {
      this.#timers.delete(timer);
      task();
    });
    this.#timers.add(timer);
    return {
      cancel: () => {
        this.#timers.delete(timer);
        timer.cancel();
      },
    };
  }

  defer(task: () => void): void {
    this.#system.defer(task);
  }

  end(): void {
    this.#over = true;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }
}
