// The demo as a process of its own, as `npm start` runs it, and what tests ask of it over HTTP.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { PNG } from 'pngjs';
import type { ControlAction, DaemonStatus, GuestStatus } from '../../src/daemon/status.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const runtime = systemRuntime();

/** Pixels of a picture: RGBA, row by row. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

export class DemoProcess implements AsyncDisposable {
  readonly url: URL;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, url: URL) {
    this.#child = child;
    this.url = url;
  }

  /** Starts the demo on a free port and waits until it says that it is ready. */
  static async start(...args: string[]): Promise<DemoProcess> {
    const child = spawn(
      process.execPath,
      [main, 'demo', '--json', '--listen', '127.0.0.1:0', '--log-level', 'warn', ...args],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const [line] = await once(child.stdout!.setEncoding('utf8'), 'data');
    const { url, pid } = JSON.parse(line);
    assert.equal(pid, child.pid);
    return new DemoProcess(child, new URL(url));
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

  /** The guest, once its picture is on its screen and its keyboard is connected. */
  ready(name: string): Promise<GuestStatus> {
    return this.guestWhen(
      name,
      ({ displays, input }) => displays[0]?.format != null && input.state === 'connected',
    );
  }

  async picture({ domid }: GuestStatus): Promise<Pixels> {
    const response = await this.fetch(`/api/guests/${domid}/displays/0.png`);
    assert.equal(response.status, 200);
    return PNG.sync.read(Buffer.from(await response.arrayBuffer()));
  }

  async input({ domid }: GuestStatus, events: readonly object[]): Promise<void> {
    const body = JSON.stringify(events);
    const response = await this.fetch(`/api/guests/${domid}/input`, { method: 'POST', body });
    assert(response.ok, `${response.status} ${await response.text()}`);
  }

  async control({ domid }: GuestStatus, action: ControlAction): Promise<void> {
    const body = JSON.stringify({ action });
    const response = await this.fetch(`/api/guests/${domid}/control`, { method: 'POST', body });
    assert(response.ok, `${response.status} ${await response.text()}`);
  }

  /** Ends it as a service manager would. @returns the exit code */
  async stop(): Promise<number | null> {
    if (this.#child.exitCode !== null) return this.#child.exitCode;
    this.#child.kill('SIGTERM');
    const [code] = await once(this.#child, 'exit');
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
