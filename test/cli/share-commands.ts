// A machine in the test's process, and `share` commands that enter it, each a process of its own, as a person or a
// script starts them. At the end nothing may be left on the hypervisor's books.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { leakReport } from '../../src/hypervisor/books.ts';
import { listenForGuests } from '../../src/hypervisor/process/listener.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
export const runtime = systemRuntime();
const PATIENCE_MS = 60_000;

export interface Ended {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** A command that runs. */
export class ShareCommand {
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcess;
  readonly #out: Buffer[] = [];
  #errors = '';

  constructor(args: readonly string[]) {
    this.#child = spawn(process.execPath, [main, 'share', ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.stdin.on('error', () => {});
    this.#child.stdout!.on('data', (part: Buffer) => this.#out.push(part));
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text;
    });
    this.ended = new Promise((resolve) => {
      this.#child.on('close', (code) => {
        resolve({ code, stdout: Buffer.concat(this.#out), stderr: this.#errors });
      });
    });
  }

  get stdin(): Writable {
    return this.#child.stdin!;
  }

  get stdout(): Readable {
    return this.#child.stdout!;
  }

  get printed(): string {
    return Buffer.concat(this.#out).toString();
  }

  get errors(): string {
    return this.#errors;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** What it has printed, once that matches. */
  async prints(pattern: RegExp): Promise<string> {
    const ended = this.ended.then(() => true);
    let over = false;
    void ended.then(() => {
      over = true;
    });
    const what = `${pattern} of a command`;
    await until(runtime, () => over || pattern.test(this.printed), {
      what,
      timeoutMs: PATIENCE_MS,
      intervalMs: 20,
    });
    assert.match(this.printed, pattern, this.#errors);
    return this.printed;
  }

  /** What it has complained about or told people, once that matches. */
  async says(pattern: RegExp): Promise<void> {
    const found = () => pattern.test(this.#errors);
    await until(runtime, found, { what: `${pattern}`, timeoutMs: PATIENCE_MS, intervalMs: 20 });
  }
}

export interface ShareMachine {
  readonly host: XenHost;
  readonly directory: string;
  /** `share VERB` as the domain of that name. */
  command(verb: string, as: string, ...args: string[]): ShareCommand;
}

/** Runs `body` with a machine; then what commands are left are killed, and the books must be empty. */
export async function onShareMachine(body: (machine: ShareMachine) => Promise<void>) {
  const directory = mkdtempSync(join(tmpdir(), 'xen-zcopy-share-'));
  const path = join(directory, 'machine');
  const host = await XenHost.start({ runtime });
  const listener = await listenForGuests({ host, path });
  const commands: ShareCommand[] = [];
  try {
    await body({
      host,
      directory,
      command: (verb, as, ...args) => {
        const started = new ShareCommand([verb, '--machine', path, '--as', as, ...args]);
        commands.push(started);
        return started;
      },
    });
    for (const command of commands) command.kill('SIGKILL');
    await until(runtime, () => host.guests.length === 0, { what: 'every domain is gone' });
    assert.deepEqual(leakReport(host.hypervisor.books()), []);
  } finally {
    for (const command of commands) command.kill('SIGKILL');
    await listener[Symbol.asyncDispose]();
    await host[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  }
}
