// How a command that was run turns into the exit code of its process, and its failure into one line on stderr:
// 0 done, 1 failed, 2 used wrongly, 130 ended by Ctrl-C.

import { CommanderError } from 'commander';
import { messageOf, UsageError } from '../runtime/errors.ts';
import { Interrupted } from './interrupted.ts';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

/** Runs the command. Never throws. */
export async function exitCodeOf(command: () => Promise<unknown>): Promise<number> {
  try {
    await command();
    return 0;
  } catch (error) {
    if (error instanceof Interrupted) return error.exitCode;
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
    process.stderr.write(`xen-zcopy: ${messageOf(error)}\n`);
    return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED;
  }
}
