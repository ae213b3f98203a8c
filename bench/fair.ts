// Fair service: how long the page flips of a quiet guest take, from the request in its ring to the event in its hands,
// while another guest floods the daemon, and while it does not. One daemon, in one thread; both guests are processes
// of their own. A guest that floods keeps a processor busy, which on a Xen host is its own and here takes turns with the
// daemon; so it has the lowest priority, and keeps it as busy in the rounds without a flood, by counting. (`idle` says
// what that alone does, by rounds in which it does nothing.)
//
// Rounds with and without the flood take turns, so that what else the machine does meets both; each figure is a
// percentile of the flips of all its rounds together.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { setPriority, tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { DaemonStatus } from '../src/daemon/status.ts';
import { DisplayFrontend } from '../src/display/frontend.ts';
import type { GuestDisplay, GuestFramebuffer } from '../src/display/guest-display.ts';
import { XRGB8888 } from '../src/display/pixel-format.ts';
import { enterMachine } from '../src/hypervisor/index.ts';
import { sleep, systemRuntime } from '../src/runtime/runtime.ts';
import { Scope } from '../src/runtime/scope.ts';
import type { FlooderOrder } from './fair-flooder.ts';
import type { HostOrder } from './fair-host.ts';

/** What a flood may make of the 99th percentile of the quiet guest's flips. */
const LIMIT_RATIO = 2;
const ROUNDS = 5;
const ROUND_MS = 3000;
const PERIOD_MS = 1000 / 60;
/** Before a round with the flood. */
const BEGIN_MS = 300;
/** Before a round without it: what it left in its rings is served by then, as slowly as it has deserved. */
const DRAIN_MS = 2500;
const LOWEST_PRIORITY = 19;
const HIGH_PRIORITY = -10;

const COUNTING: FlooderOrder = ['counting'];
const FLOODS: Readonly<Record<string, FlooderOrder>> = {
  idle: [],
  requests: ['requests'],
  signals: ['signals'],
  store: ['store'],
  connects: ['connects'],
  buffers: ['buffers'],
  all: ['requests', 'signals', 'store', 'connects', 'buffers'],
};

const runtime = systemRuntime();

interface Bench {
  readonly host: ChildProcess;
  readonly flooder: ChildProcess;
  readonly display: GuestDisplay;
  readonly framebuffers: readonly GuestFramebuffer[];
}

/** Figures by name; the unit is at the end of the name. */
export async function benchFair(): Promise<Record<string, number>> {
  await using scope = new Scope('bench-fair');
  const bench = await open(scope);
  const figures: Record<string, number> = { limit_ratio: LIMIT_RATIO };
  await measureRound(bench);
  for (const [name, order] of Object.entries(FLOODS)) {
    Object.assign(figures, await measureFlood(bench, name, order));
  }
  return figures;
}

async function open(scope: Scope): Promise<Bench> {
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-fair-`);
  scope.defer(() => rmSync(folder, { recursive: true }));
  const path = `${folder}/machine`;
  const host = start(scope, 'fair-host', path);
  await once(host, 'message');
  prefer([process.pid, host.pid!]);
  const { domain } = scope.own(await enterMachine({ runtime, path, name: 'quiet' }));
  await ask(host, { domid: domain.domid, connectors: 1 });
  const flooder = start(scope, 'fair-flooder', path);
  setPriority(flooder.pid!, LOWEST_PRIORITY);
  for (const connectors of [2, 4]) {
    const [{ domid }] = await once(flooder, 'message');
    await ask(host, { domid, connectors });
  }
  await once(flooder, 'message');
  const display = await new Promise<GuestDisplay>((resolve, reject) => {
    const options = { runtime, domain, onConnected: resolve, onFailed: reject };
    DisplayFrontend.open(options).then((frontend) => scope.own(frontend), reject);
  });
  const shape = { width: 1920, height: 1080, format: XRGB8888 };
  const buffers = [await display.createBuffer(shape), await display.createBuffer(shape)];
  const framebuffers = await Promise.all(buffers.map((buffer) => display.attach(buffer)));
  await display.setMode(0, framebuffers[0]);
  return { host, flooder, display, framebuffers };
}

/** What else this machine does is to disturb as little as may be: where we may say that (root), we do. */
function prefer(pids: readonly number[]): void {
  try {
    for (const pid of pids) setPriority(pid, HIGH_PRIORITY);
  } catch {
    process.stderr.write(
      '  not as root: other programs of this machine disturb the figures more\n',
    );
  }
}

function start(scope: Scope, program: string, path: string): ChildProcess {
  const child = fork(fileURLToPath(new URL(`./${program}.js`, import.meta.url)), [path]);
  scope.defer(async () => {
    const over = once(child, 'exit');
    child.kill();
    await over;
  });
  return child;
}

async function ask(host: ChildProcess, order: HostOrder): Promise<DaemonStatus> {
  host.send(order);
  const [status] = await once(host, 'message');
  return status;
}

/** Rounds with and without that flood. */
async function measureFlood(
  bench: Bench,
  name: string,
  order: FlooderOrder,
): Promise<Record<string, number>> {
  const quietMs: number[] = [];
  const floodedMs: number[] = [];
  const before = await countsOf(bench);
  for (let round = 0; round < ROUNDS; round++) {
    bench.flooder.send(COUNTING);
    await sleep(runtime, DRAIN_MS);
    quietMs.push(...(await measureRound(bench)));
    bench.flooder.send(order);
    await sleep(runtime, BEGIN_MS);
    floodedMs.push(...(await measureRound(bench)));
  }
  const after = await countsOf(bench);
  const [quiet, flooded] = [percentilesOf(quietMs), percentilesOf(floodedMs)];
  const figures: Record<string, number> = {};
  for (const key of ['p50', 'p99'] as const) {
    figures[`${name}_without_${key}_ms`] = quiet[key];
    figures[`${name}_${key}_ms`] = flooded[key];
  }
  figures[`${name}_p99_ratio`] = flooded.p99 / quiet.p99;
  figures[`${name}_refused`] = after.refused - before.refused;
  figures[`${name}_throttled`] = after.throttled - before.throttled;
  return figures;
}

interface Percentiles {
  readonly p50: number;
  readonly p99: number;
}

/** Flips at sixty a second for a while. @returns how long they took, in milliseconds */
async function measureRound({ display, framebuffers }: Bench): Promise<number[]> {
  const timesMs: number[] = [];
  const beginMs = runtime.nowMs();
  for (let count = 0; count * PERIOD_MS < ROUND_MS; count++) {
    await sleep(runtime, Math.max(0, beginMs + count * PERIOD_MS - runtime.nowMs()));
    const startMs = runtime.nowMs();
    await display.flipped(0, framebuffers[(count + 1) % 2]!);
    timesMs.push(runtime.nowMs() - startMs);
  }
  return timesMs;
}

function percentilesOf(timesMs: readonly number[]): Percentiles {
  const sorted = [...timesMs].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))]!;
  return { p50: at(0.5), p99: at(0.99) };
}

/** What the guests that flood were refused, and how often they had to wait. */
async function countsOf({ host }: Bench): Promise<{ refused: number; throttled: number }> {
  const { guests } = await ask(host, {});
  const flooders = guests.filter(({ name }) => name !== 'quiet');
  const total = (key: 'refused' | 'throttled') =>
    flooders.reduce((all, guest) => all + sum(guest[key]), 0);
  return { refused: total('refused'), throttled: total('throttled') };
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}
