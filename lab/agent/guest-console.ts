// A guest's console as a channel for commands: the guest's init answers one request a line (see
// images/guest-init). The console is a pty of xenconsoled's, whose path xenstore names. One command
// runs at a time; later ones wait their turn.
import { execFile } from 'node:child_process';
import { constants, openSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import { promisify } from 'node:util';
import type { Timer } from '../../src/runtime/runtime.ts';
import { clock } from './clock.ts';
import type { GuestRunRequest, RunResult } from './protocol.ts';

const execFileAsync = promisify(execFile);

/** What a guest may say without a line end before we call it broken, in bytes. */
const LINE_LIMIT_BYTES = 64 << 20;

/** How much longer than the command itself we wait for its reply, in milliseconds. */
const REPLY_GRACE_MS = 30_000;

const READY = 'lab-guest ready';
const REPLY = /^lab-reply (\d+) (\d+) (\S*) (\S*)$/;

/** The exit status that busybox `timeout -s KILL` gives when it had to kill. */
const KILLED_CODE = 137;

type ReplyHandler = (result: RunResult) => void;

/** The console of one running guest. */
export class GuestConsole {
  readonly #tty: ReadStream;
  readonly #waiting = new Map<number, ReplyHandler>();
  #nextId = 1;
  #pending: string[] = [];
  #pendingBytes = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #closed: string | undefined;
  #markReady: () => void = () => {};
  readonly #ready = new Promise<void>((resolve) => {
    this.#markReady = resolve;
  });

  constructor(path: string) {
    this.#tty = new ReadStream(openSync(path, constants.O_RDWR | constants.O_NOCTTY));
    this.#tty.setRawMode(true);
    this.#tty.setEncoding('latin1');
    this.#tty.on('data', (text: string) => this.#receive(text));
    const gone = () => this.close('the guest is gone');
    this.#tty.on('error', gone);
    this.#tty.on('close', gone);
    this.#tty.on('end', gone);
  }

  get closed(): boolean {
    return this.#closed !== undefined;
  }

  /** Ends every command that waits with an error that says `reason`. */
  close(reason: string): void {
    if (this.closed) return;
    this.#closed = reason;
    this.#tty.destroy();
    this.#markReady();
    const handlers = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const handler of handlers) {
      handler({ code: null, signal: 'SIGHUP', stdout: '', stderr: reason });
    }
  }

  /** Runs one shell command; the result's `signal` is set when it had to be killed or the guest went. */
  run(request: GuestRunRequest): Promise<RunResult> {
    const result = this.#turn.then(() => this.#runNow(request));
    this.#turn = result.catch(() => {});
    return result;
  }

  async #runNow(request: GuestRunRequest): Promise<RunResult> {
    let limit: Timer | undefined;
    const silence = new Promise<'silence'>((resolve) => {
      limit = clock.after(request.timeoutMs + REPLY_GRACE_MS, () => resolve('silence'));
    });
    try {
      if ((await Promise.race([this.#ready, silence])) === 'silence') {
        throw new Error('the guest did not come up in time');
      }
      if (this.#closed !== undefined) throw new Error(this.#closed);
      return await this.#ask(request, silence);
    } finally {
      limit?.cancel();
    }
  }

  async #ask(request: GuestRunRequest, silence: Promise<'silence'>): Promise<RunResult> {
    const id = this.#nextId++;
    const seconds = Math.ceil(request.timeoutMs / 1000);
    const reply = new Promise<RunResult>((resolve) => this.#waiting.set(id, resolve));
    const command = Buffer.from(request.command, 'utf8').toString('base64');
    this.#tty.write(`${id} ${seconds} ${command}\n`);
    const result = await Promise.race([reply, silence]);
    this.#waiting.delete(id);
    if (result === 'silence') throw new Error('the guest did not answer in time');
    return result;
  }

  #receive(text: string): void {
    let start = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
      this.#pending.push(text.slice(start, end));
      this.#line(this.#pending.join('').replace(/\r+$/, ''));
      this.#pending = [];
      this.#pendingBytes = 0;
      start = end + 1;
    }
    this.#pending.push(text.slice(start));
    this.#pendingBytes += text.length - start;
    if (this.#pendingBytes > LINE_LIMIT_BYTES) this.close('the guest sent a line without an end');
  }

  #line(line: string): void {
    if (line === READY) this.#markReady();
    const reply = REPLY.exec(line);
    if (reply === null) return;
    const [, id, code, stdout, stderr] = reply;
    const killed = Number(code) === KILLED_CODE;
    this.#waiting.get(Number(id))?.({
      code: killed ? null : Number(code),
      signal: killed ? 'SIGKILL' : null,
      stdout: Buffer.from(stdout!, 'base64').toString('utf8'),
      stderr: Buffer.from(stderr!, 'base64').toString('utf8'),
    });
  }
}

/** The path of the pty that is the console of domain `domid`; throws when it has none. */
export async function consolePath(domid: number): Promise<string> {
  const node = `/local/domain/${domid}/console/tty`;
  const { stdout } = await execFileAsync('xenstore-read', [node]);
  return stdout.trim();
}
