// A program that was left running in dom0 or in a guest: its output can be read while it runs, lines can be sent to its
// stdin, it can be signalled, and its exit status is kept. All of it by lines of shell there.
import { type Runtime, until } from '../src/runtime/runtime.ts';
import type { RunResult } from './agent/protocol.ts';
import { CommandFailed } from './dom0.ts';

const RUN_TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 250;
const LOOKS_AT_ONCE = 10;

/** A domain that runs lines of shell. */
export interface ShellDomain {
  /** For errors. */
  readonly name: string;
  readonly runtime: Runtime;
  /** Runs a line to its end, however it ends. */
  run(line: string): Promise<RunResult>;
}

/** Kills the programs that are left in a domain, and removes what they have written. */
export const END_ALL_PROGRAMS =
  'for f in /tmp/program-*/pid; do [ -e "$f" ] && kill -KILL "$(cat "$f")"; done 2>/dev/null; rm -rf /tmp/program-*';

/**
 * The line that starts a program, and says where its files are and what its process is. Its stdin is a fifo that it
 * holds open for writing as well, so that neither side waits for the other, nor sees an end.
 */
function startLine(commandLine: string): string {
  return [
    'd=$(mktemp -d /tmp/program-XXXXXX) && mkfifo $d/in || exit 1',
    `(${commandLine} <>$d/in >$d/out 2>&1 & echo $! >$d/pid; wait $!; echo $? >$d/code) </dev/null >/dev/null 2>&1 &`,
    'while [ ! -s $d/pid ]; do sleep 0.1; done; echo $d $(cat $d/pid)',
  ].join('\n');
}

/** Open for reading as well, it never waits for a program that has gone. */
function tellLine(line: string): string {
  return `echo ${quoted(line)} 1<>in`;
}

/** A word that the shell takes as it is. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function parseLine<T>(line: string, text: string): T {
  try {
    return JSON.parse(line) as T;
  } catch {
    throw new Error(`a program complains: ${text}`);
  }
}

export class Program {
  readonly #domain: ShellDomain;
  readonly #folder: string;
  readonly pid: number;

  private constructor(domain: ShellDomain, folder: string, pid: number) {
    this.#domain = domain;
    this.#folder = folder;
    this.pid = pid;
  }

  /** Starts a single command, with its arguments as the shell reads them. */
  static async start(domain: ShellDomain, commandLine: string): Promise<Program> {
    const [folder, pid] = (await shell(domain, startLine(commandLine))).trim().split(' ');
    return new Program(domain, folder!, Number(pid));
  }

  /** What it has written so far, stdout and stderr. */
  output(): Promise<string> {
    return this.#shell('cat out');
  }

  /** The JSON lines it has written so far. @throws when it wrote something else, which is its complaint */
  async lines<T>(): Promise<T[]> {
    const text = await this.output();
    const complete = text.slice(0, text.lastIndexOf('\n') + 1);
    return complete
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => parseLine<T>(line, text));
  }

  /** Resolves with the lines when there are at least `count`. */
  async waitForLines<T>(count: number, timeoutMs: number): Promise<T[]> {
    // A guest's console is slow: the lines are counted there, and fetched once.
    const enough = async () => Number(await this.#shell('wc -l <out')) >= count;
    await this.#until(enough, { what: `${count} lines from a program`, timeoutMs });
    return this.lines<T>();
  }

  /** Puts a line on its stdin. */
  async tell(line: string): Promise<void> {
    await this.#shell(tellLine(line));
  }

  /** Resolves with the JSON line that begins with `beginning`, once it is there. */
  waitForLine<T>(beginning: string, timeoutMs: number): Promise<T> {
    return this.#find(beginning, { before: 'true', timeoutMs });
  }

  /** Puts a line on its stdin, and resolves with the JSON line of its output that begins with `beginning`. */
  ask<T>(
    line: string,
    { beginning, timeoutMs }: { beginning: string; timeoutMs: number },
  ): Promise<T> {
    return this.#find(beginning, { before: tellLine(line), timeoutMs });
  }

  async running(): Promise<boolean> {
    return (await this.exitStatus()) === undefined;
  }

  /** As the shell has it, 128 and the signal's number when one ended it; undefined while it runs. */
  async exitStatus(): Promise<number | undefined> {
    const text = await this.#shell('cat code 2>/dev/null || true');
    return text.endsWith('\n') ? Number(text) : undefined;
  }

  /** Sends a signal and waits for the end. @returns the exit status */
  async stop({
    signal = 'TERM',
    timeoutMs = RUN_TIMEOUT_MS,
  }: {
    signal?: 'TERM' | 'KILL';
    timeoutMs?: number;
  } = {}): Promise<number> {
    await this.#domain.run(`kill -${signal} ${this.pid}`);
    return this.ended(timeoutMs);
  }

  /** Waits until it has ended by itself. @returns the exit status */
  async ended(timeoutMs: number): Promise<number> {
    await until(this.#domain.runtime, async () => !(await this.running()), {
      what: `the end of a program in ${this.#domain.name}`,
      timeoutMs,
      intervalMs: POLL_INTERVAL_MS,
    });
    return (await this.exitStatus())!;
  }

  /** Waits for what the program will write. @throws with its words when it has ended without it */
  async #until(
    condition: () => Promise<boolean>,
    { what, timeoutMs }: { what: string; timeoutMs: number },
  ): Promise<void> {
    const met = async () => {
      const running = await this.running();
      if (await condition()) return true;
      if (running) return false;
      throw new Error(`the program ended too early; it said: ${await this.output()}`);
    };
    await until(this.#domain.runtime, met, {
      what: `${what} in ${this.#domain.name}`,
      timeoutMs,
      intervalMs: POLL_INTERVAL_MS,
    });
  }

  /**
   * Runs `before` and looks for a line. A guest's console takes long for each question: the looking is done there,
   * for a moment at a time, as others may want to ask there as well.
   */
  async #find<T>(
    beginning: string,
    { before, timeoutMs }: { before: string; timeoutMs: number },
  ): Promise<T> {
    const look = `grep -m 1 -F ${quoted(beginning)} out`;
    const looks = `for i in ${'. '.repeat(LOOKS_AT_ONCE)}; do ${look} && break; [ -e code ] && break; sleep 0.1; done; true`;
    let line = await this.#shell(`${before}; ${looks}`);
    // A line that is still being written has no end yet.
    const found = () => line.startsWith(beginning) && line.endsWith('\n');
    const condition = async () => {
      if (!found()) line = await this.#shell(looks);
      return found();
    };
    if (!found()) await this.#until(condition, { what: `the line ${beginning}`, timeoutMs });
    return parseLine<T>(line, line);
  }

  #shell(line: string): Promise<string> {
    return shell(this.#domain, `cd ${this.#folder} && { ${line}; }`);
  }
}

async function shell(domain: ShellDomain, line: string): Promise<string> {
  const result = await domain.run(line);
  if (result.code !== 0) throw new CommandFailed(`${domain.name}: ${line}`, result);
  return result.stdout;
}
