// A machine with its socket, and processes that enter it, for tests: `ProcessGuest` tells a child process
// (`process-guest.ts`) what to do, step by step.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { leakReport } from '../../../src/hypervisor/books.ts';
import {
  type GuestListenerOptions,
  listenForGuests,
} from '../../../src/hypervisor/process/listener.ts';
import { XenHost } from '../../../src/hypervisor/xen-host.ts';
import { type Runtime, systemRuntime } from '../../../src/runtime/runtime.ts';
import { DOM0, type DomId, type Gref } from '../../../src/xen/ids.ts';
import { eventually } from '../worker/host.ts';

const program = fileURLToPath(new URL('./process-guest.js', import.meta.url));

export type Steps = { readonly [argument: string]: unknown };

/** A process that is, or wants to be, a domain. */
export class ProcessGuest {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #answers = new Map<number, (answer: { result?: unknown; error?: string }) => void>();
  readonly exited: Promise<unknown>;
  #lastId = 0;

  constructor(path: string, name: string) {
    this.name = name;
    this.#child = spawn(process.execPath, ['--enable-source-maps', program, path, name], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.exited = once(this.#child, 'exit');
    createInterface(this.#child.stdout!).on('line', (line) => {
      const { id, ...answer } = JSON.parse(line);
      this.#answers.get(id)?.(answer);
    });
    this.#child.stdin!.on('error', () => {});
  }

  /** Does a step; undefined where it has no result. @throws Error with the errno's name */
  async tell<T = unknown>(step: string, given: Steps = {}): Promise<T> {
    const id = ++this.#lastId;
    const answered = new Promise<{ result?: unknown; error?: string }>((resolve) => {
      this.#answers.set(id, resolve);
    });
    this.#child.stdin!.write(`${JSON.stringify({ id, do: step, ...given })}\n`);
    const { result, error } = await answered;
    if (error !== undefined) throw new Error(error);
    return result as T;
  }

  enter(): Promise<DomId> {
    return this.tell<DomId>('enter');
  }

  share(given: { domid: DomId; pages: number; writable: boolean; fill: number }): Promise<Gref[]> {
    return this.tell<Gref[]>('share', given);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.exited;
  }
}

export interface TestMachine {
  readonly host: XenHost;
  readonly path: string;
  /** Starts a process that has entered. */
  guest(name: string): Promise<ProcessGuest & { readonly domid: DomId }>;
}

/**
 * Runs `body` with a machine and its socket; then kills what processes are left, after which all guests must
 * be gone and the books empty.
 */
export async function onMachine(
  body: (machine: TestMachine) => Promise<void>,
  options: Partial<GuestListenerOptions> = {},
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'xen-zcopy-machine-'));
  const path = join(directory, 'machine');
  const host = await XenHost.start({ runtime: systemRuntime() });
  const processes: ProcessGuest[] = [];
  const guest = async (name: string) => {
    const started = new ProcessGuest(path, name);
    processes.push(started);
    return Object.assign(started, { domid: await started.enter() });
  };
  const listener = await listenForGuests({ host, path, ...options });
  try {
    const empty = host.hypervisor.memory.freeFrames;
    await body({ host, path, guest });
    await Promise.all(processes.map((process) => process.kill()));
    await eventually(() => host.guests.length === 0, 'every guest is gone');
    const clean = () => leakReport(host.hypervisor.books()).length === 0;
    await eventually(clean, 'dom0 got back what it had lent');
    assert.equal(host.hypervisor.memory.freeFrames, empty);
  } finally {
    for (const process of processes) process.signal('SIGKILL');
    await listener[Symbol.asyncDispose]();
    await host[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  }
}

/** Runs `body` with a host, and a path where a socket may be. */
export async function onSocket(
  body: (path: string, host: XenHost) => Promise<void>,
  { runtime = systemRuntime() }: { runtime?: Runtime } = {},
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'xen-zcopy-machine-'));
  const host = await XenHost.start({ runtime });
  try {
    await body(join(directory, 'machine'), host);
  } finally {
    if (host.hypervisor.domain(DOM0)) await host[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  }
}
