// Processes of dom0, by name: those that run to their end while someone waits, and those left running
// with a log file. A process group each, so that stopping one takes its children along.
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { clock } from './clock.ts';
import type { ProcessState, RunRequest, RunResult, StartRequest } from './protocol.ts';

/** Output of a command beyond this is cut off, in bytes. */
const OUTPUT_LIMIT_BYTES = 64 << 20;

/** A killed process that holds much memory of guests takes its time. */
const KILL_TIMEOUT_MS = 30_000;

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size <= OUTPUT_LIMIT_BYTES) chunks.push(chunk);
  });
  return () => Buffer.concat(chunks).toString('utf8');
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    // The group ended by itself in the meantime: what was asked for is so.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Runs a command to its end; kills its whole group when `timeoutMs` has passed. */
export function run(request: RunRequest): Promise<RunResult> {
  const [program, ...args] = request.argv;
  const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  const limit = clock.after(request.timeoutMs, () => signalGroup(child, 'SIGKILL'));
  return new Promise((resolve, reject) => {
    child.on('error', (error) => {
      limit.cancel();
      reject(error);
    });
    child.on('close', (code, signal) => {
      limit.cancel();
      resolve({ code, signal, stdout: stdout(), stderr: stderr() });
    });
  });
}

function stateOf(child: ChildProcess): ProcessState {
  return {
    pid: child.pid ?? 0,
    running: child.exitCode === null && child.signalCode === null,
    code: child.exitCode,
    signal: child.signalCode,
  };
}

/** The processes that were left running. */
export class Processes {
  readonly #children = new Map<string, ChildProcess>();

  /** Starts one; throws when one of that name still runs or the program cannot be started. */
  async start({ name, argv, environment }: StartRequest): Promise<ProcessState> {
    if (!/^[\w.-]+$/.test(name)) throw new Error(`not a process name: ${name}`);
    if (this.state(name)?.running) {
      throw new Error(`${name} is already running`);
    }
    const log = openSync(`/var/log/${name}.log`, 'a');
    const [program, ...args] = argv;
    const child = spawn(program!, args, {
      stdio: ['ignore', log, log],
      detached: true,
      env: { ...process.env, ...environment },
    });
    closeSync(log);
    await new Promise((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    this.#children.set(name, child);
    return stateOf(child);
  }

  /** How the process of this name is doing; null when none was ever started. */
  state(name: string): ProcessState | null {
    const child = this.#children.get(name);
    return child === undefined ? null : stateOf(child);
  }

  /** Sends `signal` and waits for the end; after `timeoutMs` it is killed. */
  async stop(name: string, options: { signal: NodeJS.Signals; timeoutMs: number }) {
    const child = this.#children.get(name);
    if (child === undefined) throw new Error(`no process named ${name} was started`);
    if (stateOf(child).running) {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      signalGroup(child, options.signal);
      const limit = clock.after(options.timeoutMs, () => signalGroup(child, 'SIGKILL'));
      await ended;
      limit.cancel();
    }
    return stateOf(child);
  }

  /** Kills all that run, and waits for their ends. */
  async killAll(): Promise<void> {
    const ends = [...this.#children.keys()].map((name) =>
      this.stop(name, { signal: 'SIGKILL', timeoutMs: KILL_TIMEOUT_MS }),
    );
    await Promise.all(ends);
  }
}
