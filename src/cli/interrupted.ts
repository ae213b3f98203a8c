// A command that was ended by a signal before its work was done, and the exit code that says so: 130 for Ctrl-C.

import { constants } from 'node:os';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
/** What shells add to a signal's number. */
const EXIT_BY_SIGNAL = 128;

export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly exitCode: number;

  constructor(signal: (typeof SIGNALS)[number]) {
    super(`ended by ${signal}`);
    this.exitCode = EXIT_BY_SIGNAL + constants.signals[signal];
  }
}

/** Calls `onInterrupted` at the first SIGINT or SIGTERM; the second one ends the process at once. */
export function onInterruption(onInterrupted: (why: Interrupted) => void): void {
  for (const signal of SIGNALS) {
    process.once(signal, () => {
      const why = new Interrupted(signal);
      for (const again of SIGNALS) process.once(again, () => process.exit(why.exitCode));
      onInterrupted(why);
    });
  }
}
