// Programs of this machine, run to their end; what they say is in the error when they fail.
import { spawn } from 'node:child_process';
import { SysError } from '../src/runtime/errors.ts';
import { HOST_PACKAGES } from './recipe.ts';

/** The last part of a failed program's own words that goes into the error, in characters. */
const COMPLAINT_LIMIT = 2000;

function cannotStart(call: string, errnoName: string, context: string): SysError {
  if (errnoName !== 'ENOENT') return new SysError({ call, errnoName, context });
  const remedy = `as root: apt-get install ${HOST_PACKAGES.join(' ')}`;
  return new SysError({ call, errnoName, context, remedy });
}

export interface CommandOptions {
  /** What the command is for, for the error's message. */
  readonly context: string;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal;
}

/**
 * Runs `argv` and returns what it wrote to stdout.
 * @throws {SysError} when it cannot be started or ends with another status than 0
 */
export function command(argv: readonly string[], options: CommandOptions): Promise<Buffer> {
  const { context, ...rest } = options;
  const [program, ...args] = argv;
  const child = spawn(program!, args, { ...rest, stdio: ['ignore', 'pipe', 'pipe'] });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  return new Promise((resolve, reject) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      if (error.name === 'AbortError') reject(error);
      else reject(cannotStart(program!, error.code ?? 'unknown', context));
    });
    child.on('close', (code, signal) => {
      if (code === 0) return resolve(Buffer.concat(stdout));
      const complaint = Buffer.concat(stderr).toString('utf8').trim().slice(-COMPLAINT_LIMIT);
      const errnoName = signal ?? `exit status ${code}`;
      reject(new SysError({ call: argv.join(' '), errnoName, context, remedy: complaint }));
    });
  });
}
