// The daemon in dom0, started and stopped by the lab, and a client of its HTTP API over QEMU's forwarded
// port: what somebody outside would write against the contract in the documentation.
import type { DaemonStatus, GuestStatus } from '../src/daemon/status.ts';
import type { InputEvent } from '../src/outputs/browser/protocol.ts';
import { until } from '../src/runtime/runtime.ts';
import type { Dom0 } from './dom0.ts';
import { ask } from './http.ts';
import { DAEMON_PORT, type Machine } from './machine.ts';
import { DAEMON_MAIN, deployDaemon } from './payload.ts';

const PROCESS_NAME = 'xen-zcopy';
const TOKEN_FILE = '/run/xen-zcopy.token';
const TOKEN_BYTES = 16;
const READY_TIMEOUT_MS = 120_000;
const REQUEST_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 250;

interface DaemonParts {
  /** Of this machine's loopback. */
  readonly port: number;
  readonly token: string;
  /** Of `serve`, besides those for the API. */
  readonly arguments: readonly string[];
}

/** The daemon that runs in a machine's dom0. */
export class Daemon {
  readonly dom0: Dom0;
  readonly token: string;
  /** Of this machine's loopback. */
  readonly #port: number;
  readonly #arguments: readonly string[];

  private constructor(dom0: Dom0, parts: DaemonParts) {
    this.dom0 = dom0;
    this.#port = parts.port;
    this.token = parts.token;
    this.#arguments = parts.arguments;
  }

  /** The address to open in a browser. */
  get url(): string {
    return `http://127.0.0.1:${this.#port}/?token=${this.token}`;
  }

  /**
   * Sends the daemon as it is built now to dom0, starts it with more arguments of `serve`, and waits until it
   * serves. @throws with what it said when it ends instead
   */
  static async start(
    machine: Pick<Machine, 'dom0' | 'daemonPort'>,
    ...serveArguments: readonly string[]
  ): Promise<Daemon> {
    const { dom0, daemonPort } = machine;
    await deployDaemon(dom0);
    const token = Buffer.from(dom0.runtime.random.bytes(TOKEN_BYTES)).toString('hex');
    await dom0.writeFile(TOKEN_FILE, `${token}\n`);
    const parts = { port: daemonPort, token, arguments: serveArguments };
    const daemon = new Daemon(dom0, parts);
    await daemon.restart();
    return daemon;
  }

  /** Starts it again after stop(), with the same token and arguments. */
  async restart(): Promise<void> {
    const listen = `0.0.0.0:${DAEMON_PORT}`;
    const serve = ['serve', '--listen', listen, '--token-file', TOKEN_FILE, ...this.#arguments];
    const argv = ['node', DAEMON_MAIN, ...serve];
    await this.dom0.start({ name: PROCESS_NAME, argv, environment: {} });
    await until(this.dom0.runtime, () => this.#serves(), {
      what: 'the daemon in dom0 serves',
      timeoutMs: READY_TIMEOUT_MS,
      intervalMs: POLL_INTERVAL_MS,
    }).catch(async (error: Error) => {
      throw new Error(`${error.message}; it said:\n${await this.log()}`);
    });
  }

  /** Ends it with a signal and waits for the end. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const end = await this.dom0.stop(PROCESS_NAME, { signal, timeoutMs: STOP_TIMEOUT_MS });
    if (signal === 'SIGTERM' && end.code !== 0) {
      const how = end.signal ?? `status ${end.code}`;
      throw new Error(`the daemon ended with ${how}; it said:\n${await this.log()}`);
    }
  }

  /** The number of its process in dom0. */
  async pid(): Promise<number> {
    return (await this.dom0.processState(PROCESS_NAME))!.pid;
  }

  /** Everything it has written. */
  log(): Promise<string> {
    return this.dom0.log(PROCESS_NAME);
  }

  async status(): Promise<DaemonStatus> {
    return JSON.parse((await this.#ask('/api/status')).toString('utf8')) as DaemonStatus;
  }

  /** The guest of this domid as the daemon sees it now. */
  async guest(domid: number): Promise<GuestStatus | undefined> {
    return (await this.status()).guests.find((guest) => guest.domid === domid);
  }

  /** The picture on a screen now, as PNG. */
  png(domid: number, connector: number): Promise<Buffer> {
    return this.#ask(`/api/guests/${domid}/displays/${connector}.png`);
  }

  async input(domid: number, events: readonly InputEvent[]): Promise<void> {
    await this.#ask(`/api/guests/${domid}/input`, events);
  }

  async #serves(): Promise<boolean> {
    if (!(await this.dom0.processState(PROCESS_NAME))?.running)
      throw new Error('the daemon has ended');
    return this.status().then(
      () => true,
      () => false,
    );
  }

  /** Each time by a new connection: the daemon ends idle ones, perhaps just when a request is on its way. */
  async #ask(path: string, events?: readonly InputEvent[]): Promise<Buffer> {
    const { status, body } = await ask(this.dom0.runtime, {
      port: this.#port,
      path,
      timeoutMs: REQUEST_TIMEOUT_MS,
      headers: {
        authorization: `Bearer ${this.token}`,
        ...(events ? { 'content-type': 'application/json' } : {}),
      },
      ...(events
        ? { method: 'POST', body: Buffer.from(JSON.stringify(events)) }
        : { method: 'GET' }),
    });
    if (status >= 300) throw new Error(`${path} answers ${status}: ${body.toString('utf8')}`);
    return body;
  }
}
