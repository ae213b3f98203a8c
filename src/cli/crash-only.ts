// What becomes of a defect of ours that is no guest's: the process says what it was, in one line, and ends at once
// with exit code 1, for its supervisor to start it again. Nothing is tidied up: a program that does not know its own
// state any more is better gone, the kernel gives back what it had, and the next one takes up the guests.

import { messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/runtime.ts';

const EXIT_FAILED = 1;

/** From now on; at most one defect is ever told. */
export function endOnDefect(log: Logger): void {
  process.once('uncaughtException', (error, origin) => {
    log.fatal({ err: error, origin }, 'a defect outside of any guest');
    process.stderr.write(`xen-zcopy: a defect of ours ended the process: ${messageOf(error)}\n`);
    process.exit(EXIT_FAILED);
  });
}
