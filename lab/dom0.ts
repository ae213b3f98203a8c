// dom0 from outside: a typed client of the lab's agent there (agent/protocol.ts).
import { Agent } from 'node:http';
import type { Runtime } from '../src/runtime/runtime.ts';
import {
  type GuestRunRequest,
  type ProcessState,
  type RunResult,
  type StartRequest,
  TOKEN_HEADER,
} from './agent/protocol.ts';
import { ask } from './http.ts';

const RUN_TIMEOUT_MS = 60_000;
/** Short, as what is sent before dom0's network is up is lost. */
const HEALTH_TIMEOUT_MS = 1_000;
/** How much longer than the work itself we wait for the agent's answer. */
const ANSWER_GRACE_MS = 60_000;

export interface Dom0Options {
  readonly runtime: Runtime;
  /** The agent's port on this machine's loopback. */
  readonly agentPort: number;
  readonly token: string;
  /** The last lines of the machine's log, for errors. */
  readonly lastWords: () => string;
}

interface Question {
  readonly method: string;
  readonly path: string;
  readonly body?: Uint8Array;
  readonly timeoutMs: number;
}

/** A command in dom0, or in a guest, ended with another status than 0. */
export class CommandFailed extends Error {
  override readonly name = 'CommandFailed';
  readonly result: RunResult;

  constructor(what: string, result: RunResult) {
    const end = result.signal ?? `status ${result.code}`;
    super(`${what} ended with ${end}: ${`${result.stderr}\n${result.stdout}`.trim()}`);
    this.result = result;
  }
}

export class Dom0 {
  readonly #options: Dom0Options;
  readonly #agent = new Agent({ keepAlive: true });

  constructor(options: Dom0Options) {
    this.#options = options;
  }

  get runtime(): Runtime {
    return this.#options.runtime;
  }

  get agentPort(): number {
    return this.#options.agentPort;
  }

  get token(): string {
    return this.#options.token;
  }

  /** Whether the agent can be reached. */
  async answers(): Promise<boolean> {
    try {
      await this.#ask({ method: 'GET', path: '/health', timeoutMs: HEALTH_TIMEOUT_MS });
      return true;
    } catch {
      return false;
    }
  }

  /** Runs a command to its end, however it ends. */
  run(argv: readonly string[], timeoutMs = RUN_TIMEOUT_MS): Promise<RunResult> {
    return this.#post<RunResult>('/run', { argv, timeoutMs }, timeoutMs);
  }

  /** Runs a command and returns its stdout. @throws {CommandFailed} unless it ends with status 0 */
  async output(argv: readonly string[], timeoutMs = RUN_TIMEOUT_MS): Promise<string> {
    const result = await this.run(argv, timeoutMs);
    if (result.code !== 0) throw new CommandFailed(argv.join(' '), result);
    return result.stdout;
  }

  /** Runs a line of shell. @throws {CommandFailed} unless it ends with status 0 */
  shell(line: string, timeoutMs = RUN_TIMEOUT_MS): Promise<string> {
    return this.output(['sh', '-c', line], timeoutMs);
  }

  /** Starts a process and leaves it running; what it says goes to `/var/log/NAME.log`. */
  start(process: StartRequest): Promise<ProcessState> {
    return this.#post<ProcessState>('/processes', process, RUN_TIMEOUT_MS);
  }

  /** How a process started before is doing; null when none of that name ever was. */
  processState(name: string): Promise<ProcessState | null> {
    const path = `/processes/${encodeURIComponent(name)}`;
    return this.#json({ method: 'GET', path, timeoutMs: RUN_TIMEOUT_MS });
  }

  /** Sends a signal to a process started before and waits for its end; kills it after `timeoutMs`. */
  stop(
    name: string,
    {
      signal = 'SIGTERM',
      timeoutMs = 30_000,
    }: { signal?: NodeJS.Signals; timeoutMs?: number } = {},
  ): Promise<ProcessState> {
    const path = `/processes/${encodeURIComponent(name)}?signal=${signal}&timeoutMs=${timeoutMs}`;
    return this.#json({ method: 'DELETE', path, timeoutMs: timeoutMs + ANSWER_GRACE_MS });
  }

  /** Kills every process that was left running, and waits for their ends. */
  async killAll(): Promise<void> {
    await this.#ask({ method: 'DELETE', path: '/processes', timeoutMs: RUN_TIMEOUT_MS });
  }

  /** What a process left running has said so far. */
  async log(name: string): Promise<string> {
    return (await this.readFile(`/var/log/${name}.log`)).toString('utf8');
  }

  readFile(path: string): Promise<Buffer> {
    const route = `/files?path=${encodeURIComponent(path)}`;
    return this.#ask({ method: 'GET', path: route, timeoutMs: RUN_TIMEOUT_MS });
  }

  /** Writes a file; folders on the way are made. */
  async writeFile(path: string, data: Uint8Array | string): Promise<void> {
    const body = typeof data === 'string' ? Buffer.from(data, 'utf8') : data;
    const route = `/files?path=${encodeURIComponent(path)}`;
    await this.#ask({ method: 'PUT', path: route, body, timeoutMs: RUN_TIMEOUT_MS });
  }

  /**
   * Opens a guest's console: what the guest says while nobody has it open may be lost.
   * @throws when there is none, or not yet
   */
  async openConsole(domid: number): Promise<void> {
    const path = `/guests/${domid}/console`;
    await this.#ask({ method: 'POST', path, timeoutMs: RUN_TIMEOUT_MS });
  }

  /** Runs a line of shell in a guest, over its console, to its end, however it ends. */
  runInGuest(domid: number, command: GuestRunRequest): Promise<RunResult> {
    return this.#post<RunResult>(`/guests/${domid}/run`, command, command.timeoutMs);
  }

  /** Ends the idle connections to the agent. */
  close(): void {
    this.#agent.destroy();
  }

  #post<T>(path: string, message: object, workMs: number): Promise<T> {
    const body = Buffer.from(JSON.stringify(message), 'utf8');
    return this.#json({ method: 'POST', path, body, timeoutMs: workMs + ANSWER_GRACE_MS });
  }

  async #json<T>(question: Question): Promise<T> {
    return JSON.parse((await this.#ask(question)).toString('utf8')) as T;
  }

  async #ask(question: Question): Promise<Buffer> {
    const { agentPort, token, runtime, lastWords } = this.#options;
    const { status, body } = await ask(runtime, {
      ...question,
      port: agentPort,
      agent: this.#agent,
      headers: { [TOKEN_HEADER]: token },
    }).catch((error: Error) => {
      throw new Error(`dom0: ${error.message}; it said:\n${lastWords()}`);
    });
    if (status < 300) return body;
    const text = body.toString('utf8');
    const { error } = JSON.parse(text) as { error?: string };
    throw new Error(`the agent in dom0 says: ${error ?? text}`);
  }
}
