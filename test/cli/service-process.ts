// A service of ours (`demo`, `serve`) as a process of its own, and what tests ask of it over HTTP.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { PNG } from 'pngjs';
import type { DaemonStatus, GuestStatus } from '../../src/daemon/status.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';

const runtime = systemRuntime();

/** Pixels of a picture: RGBA, row by row. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ServiceProcessOptions {
  readonly environment?: NodeJS.ProcessEnv;
  /** What it says on stderr, instead of on ours. */
  readonly onStderr?: (text: string) => void;
}

export class ServiceProcess implements AsyncDisposable {
  /** How it ended. */
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #started: Promise<URL>;
  #url: URL | undefined;

  /** Starts a program that prints `{"url", "pid"}` when it is ready. */
  constructor(argv: readonly string[], { environment, onStderr }: ServiceProcessOptions = {}) {
    const child = spawn(process.execPath, ['--enable-source-maps', ...argv], {
      stdio: ['ignore', 'pipe', onStderr ? 'pipe' : 'inherit'],
      env: { ...process.env, ...environment },
    });
    this.#child = child;
    // Not before all that it said was read.
    this.exited = once(child, 'close').then(([code, signal]) => ({ code, signal }));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => onStderr?.(text));
    const lines = createInterface(child.stdout!);
    this.#started = new Promise((resolve, reject) => {
      lines.once('line', (line) => {
        const { url, pid } = JSON.parse(line);
        assert.equal(pid, child.pid);
        this.#url = new URL(url);
        resolve(this.#url);
      });
      void this.exited.then(({ code }) => reject(new Error(`it ended with ${code}`)));
    });
    this.#started.catch(() => {});
  }

  /** Resolves when it says that it is ready. @throws when it ends instead */
  async started(): Promise<this> {
    await this.#started;
    return this;
  }

  get url(): URL {
    assert(this.#url, 'not ready');
    return this.#url;
  }

  get token(): string {
    return this.url.searchParams.get('token')!;
  }

  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = { authorization: `Bearer ${this.token}`, 'content-type': 'application/json' };
    return fetch(new URL(path, this.url.origin), { ...init, headers });
  }

  async status(): Promise<DaemonStatus> {
    return (await (await this.fetch('/api/status')).json()) as DaemonStatus;
  }

  async guest(name: string): Promise<GuestStatus | undefined> {
    return (await this.status()).guests.find((guest) => guest.name === name);
  }

  /** The guest, once `condition` holds for it. */
  async guestWhen(name: string, condition: (guest: GuestStatus) => boolean): Promise<GuestStatus> {
    let found: GuestStatus | undefined;
    await until(
      runtime,
      async () => {
        found = await this.guest(name);
        return found !== undefined && condition(found);
      },
      { what: `the state of ${name}`, timeoutMs: 30_000, intervalMs: 20 },
    );
    return found!;
  }

  /** The picture on the guest's first screen; undefined while it shows nothing. */
  async pictureNow({ domid }: Pick<GuestStatus, 'domid'>): Promise<Pixels | undefined> {
    const response = await this.fetch(`/api/guests/${domid}/displays/0.png`);
    const body = Buffer.from(await response.arrayBuffer());
    if (response.status === 404 || response.status === 409) return undefined;
    assert.equal(response.status, 200);
    return PNG.sync.read(body);
  }

  async input({ domid }: Pick<GuestStatus, 'domid'>, events: readonly object[]): Promise<void> {
    const body = JSON.stringify(events);
    const response = await this.fetch(`/api/guests/${domid}/input`, { method: 'POST', body });
    assert(response.ok, `${response.status} ${await response.text()}`);
  }

  kill(signal: NodeJS.Signals): Promise<Exit> {
    this.#child.kill(signal);
    return this.exited;
  }

  /** Ends it as a service manager would. @returns the exit code */
  async stop(): Promise<number | null> {
    return (await this.kill('SIGTERM')).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
