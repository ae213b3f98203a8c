// Virtual time with a log that is kept, so that a test sees whether an assertion of ours went off where it was
// caught and only written down.

import pino from 'pino';
import type { Logger } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';

/** What the log says of errors that are neither a guest's nor the system's. */
const DEFECT =
  /AssertionError|AggregateError|TypeError|RangeError|ReferenceError|a defect of ours|ERR_ASSERTION/;

export class LoggedRuntime extends VirtualRuntime {
  readonly lines: string[] = [];
  override readonly log: Logger = pino(
    { level: 'warn' },
    { write: (line) => void this.lines.push(line) },
  );
}

/** What the log has of bugs of ours. */
export function defectsOf({ lines }: LoggedRuntime): readonly string[] {
  return lines.filter((line) => DEFECT.test(line));
}
