// What sharing by name costs: from the offer of a 1920x1080 buffer to the importer's view of it, a stream of such
// pictures at 60 a second, and bytes in bulk, beside a memcpy of the same chunks, a pipe and a Unix socket. The
// ends of the streams are two processes, domains of a machine in this one.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { listenForGuests, XenHost } from '../src/hypervisor/index.ts';
import { sleep, systemRuntime } from '../src/runtime/runtime.ts';
import { Scope } from '../src/runtime/scope.ts';
import { Exporter } from '../src/share/exporter.ts';
import { Importer } from '../src/share/importer.ts';
import { DEFAULT_RULE } from '../src/share/policy.ts';
import type { DomId } from '../src/xen/ids.ts';
import {
  CHUNK_BYTES,
  type EndFigures,
  measured,
  PICTURE_BYTES,
  SLOTS,
  SOURCE_BYTES,
  sourceBytes,
  touchPages,
} from './share-figures.ts';

const runtime = systemRuntime();

const MIB = 1024 * 1024;
const WARM_UP_ROUNDS = 30;
const ROUNDS = 60;
const BULK_BYTES = 4096 * MIB;
const PACED_SECONDS = 10;
const SHARE_ENDS = fileURLToPath(new URL('./share-ends.js', import.meta.url));
const BYTE_ENDS = fileURLToPath(new URL('./byte-ends.js', import.meta.url));

/** Figures by name; the unit is at the end of the name. */
export async function benchShare(): Promise<Record<string, number>> {
  const opening = await measureOpening();
  const paced = { ...(await measurePacedHere()), ...(await measurePaced()) };
  const bulk = { ...(await measureBulkHere()), ...(await measureBulk()) };
  return { ...opening, ...paced, ...bulk };
}

interface Ends {
  readonly exporter: Exporter;
  readonly importer: Importer;
  /** The importer's domain. */
  readonly to: DomId;
}

/** Two guests in this thread. */
async function endsHere(scope: Scope): Promise<Ends> {
  const host = scope.own(await XenHost.start({ runtime }));
  const [alice, bob] = await Promise.all(
    ['alice', 'bob'].map(async (name) => host.enter(await host.createGuest({ name }))),
  );
  const policy = { accept: [{ ...DEFAULT_RULE, from: alice!.domid }] };
  const importer = scope.own(await Importer.open({ runtime, domain: bob!, policy }));
  const exporter = scope.own(new Exporter({ runtime, domain: alice! }));
  return { exporter, importer, to: bob!.domid };
}

/** Both ends in this thread: offered, seen, opened, one byte read. */
async function measureOpening(): Promise<Record<string, number>> {
  await using scope = new Scope('bench-share');
  const { exporter, importer, to } = await endsHere(scope);
  const timesMs: number[] = [];
  for (let round = 0; round < WARM_UP_ROUNDS + ROUNDS; round++) {
    const startMs = runtime.nowMs();
    const memory = { byteLength: PICTURE_BYTES };
    const share = await exporter.share({ to, memory });
    await importer.events().next();
    const open = await importer.open(share.id);
    void open.bytes[0];
    if (round >= WARM_UP_ROUNDS) timesMs.push(runtime.nowMs() - startMs);
    await open.close();
    await share.withdraw();
    await importer.events().next();
  }
  timesMs.sort((a, b) => a - b);
  return {
    '1920x1080_offer_to_open_median_ms': timesMs[Math.floor(ROUNDS / 2)]!,
    '1920x1080_offer_to_open_p90_ms': timesMs[Math.floor(ROUNDS * 0.9)]!,
  };
}

/**
 * Sixty pictures a second from one end to the other, both in this thread with the hypervisor between them, beside
 * a timer that goes off as often and does nothing.
 */
async function measurePacedHere(): Promise<Record<string, number>> {
  await using scope = new Scope('bench-share');
  const { exporter, importer, to } = await endsHere(scope);
  const memory = { byteLength: PICTURE_BYTES };
  const share = await exporter.stream({ to, memory, slots: 3, whenFull: 'drop' });
  await importer.events().next();
  const open = await importer.open(share.id);
  let seen = 0;
  const reading = (async () => {
    for await (const frame of open.frames) seen += frame.bytes[0]! & 1;
  })();
  const publish = async (): Promise<void> => {
    const { producer } = share;
    const frame = producer.tryAcquire() ?? (await producer.acquire());
    frame.bytes[0] = 1;
    frame.publish();
  };
  await atSixtyHertz(2, publish);
  seen = 0;
  const stream = await atSixtyHertz(PACED_SECONDS, publish);
  const timer = await atSixtyHertz(PACED_SECONDS, async () => {});
  share.producer.end();
  await reading;
  return {
    '1920x1080_60hz_here_core_percent_a_side': stream / 2,
    '60hz_timer_alone_core_percent': timer,
    '1920x1080_60hz_here_frames_seen_percent': (100 * seen) / (60 * PACED_SECONDS),
  };
}

/** @returns what it takes of a core, in percent */
async function atSixtyHertz(seconds: number, tick: () => Promise<void>): Promise<number> {
  const cpu = process.cpuUsage();
  const startMs = runtime.nowMs();
  for (let count = 0; count < 60 * seconds; count++) {
    await sleep(runtime, Math.max(0, startMs + (count * 1000) / 60 - runtime.nowMs()));
    await tick();
  }
  const { user, system } = process.cpuUsage(cpu);
  return (user + system) / 10 / (runtime.nowMs() - startMs);
}

async function measurePaced(): Promise<Record<string, number>> {
  const [producer, consumer] = await onMachine({
    producer: 'paced-producer',
    consumer: 'paced-consumer',
    amount: PACED_SECONDS,
  });
  return {
    '1920x1080_60hz_producer_core_percent': corePercent(producer),
    '1920x1080_60hz_consumer_core_percent': corePercent(consumer),
    '1920x1080_60hz_frames_seen_percent': (100 * consumer.frames) / producer.frames,
  };
}

/** From one end to the other in this thread, beside copies of the same chunks to ordinary memory. */
async function measureBulkHere(): Promise<Record<string, number>> {
  await using scope = new Scope('bench-share');
  const { exporter, importer, to } = await endsHere(scope);
  const memory = { byteLength: CHUNK_BYTES };
  const share = await exporter.stream({ to, memory, slots: SLOTS });
  await importer.events().next();
  const open = await importer.open(share.id);
  const reading = (async () => {
    for await (const frame of open.frames) touchPages(frame.bytes);
  })();
  const from = sourceBytes();
  const chunk = (count: number) => {
    const at = (count * CHUNK_BYTES) % SOURCE_BYTES;
    return from.subarray(at, at + CHUNK_BYTES);
  };
  const frames = BULK_BYTES / CHUNK_BYTES;
  const send = async () => {
    for (let count = 0; count < frames; count++) {
      const frame = share.producer.tryAcquire() ?? (await share.producer.acquire());
      frame.bytes.set(chunk(count));
      frame.publish();
    }
    await share.producer.drained();
    return { bytes: BULK_BYTES, frames };
  };
  const targets = Array.from({ length: SLOTS }, () => new Uint8Array(CHUNK_BYTES));
  const copy = async () => {
    for (let count = 0; count < frames; count++) targets[count % SLOTS]!.set(chunk(count));
    return { bytes: BULK_BYTES, frames };
  };
  for (const warmUp of [send, copy]) await warmUp();
  const shared = rate(await measured(send));
  const copied = rate(await measured(copy));
  share.producer.end();
  await reading;
  return {
    bulk_here_memcpy_mib_per_s: copied,
    bulk_here_share_mib_per_s: shared,
    bulk_here_share_to_memcpy_ratio: shared / copied,
  };
}

async function measureBulk(): Promise<Record<string, number>> {
  const amount = BULK_BYTES;
  const memcpy = await alone('memcpy', amount);
  const ends = { producer: 'bulk-producer', amount };
  const [read] = await onMachine({ ...ends, consumer: 'bulk-reader' });
  const [copied] = await onMachine({ ...ends, consumer: 'bulk-copier' });
  const pipe = await throughPipe(amount);
  const socket = await throughSocket(amount);
  return {
    bulk_memcpy_mib_per_s: rate(memcpy),
    bulk_share_in_place_mib_per_s: rate(read),
    bulk_share_copied_out_mib_per_s: rate(copied),
    bulk_pipe_mib_per_s: rate(pipe),
    bulk_unix_socket_mib_per_s: rate(socket),
    bulk_share_in_place_to_memcpy_ratio: rate(read) / rate(memcpy),
    bulk_share_copied_out_to_memcpy_ratio: rate(copied) / rate(memcpy),
  };
}

function rate({ bytes, seconds }: EndFigures): number {
  return bytes / seconds / MIB;
}

function corePercent({ cpuSeconds, seconds }: EndFigures): number {
  return (100 * cpuSeconds) / seconds;
}

/** Two processes on a machine in this one. @returns producer and consumer */
async function onMachine(roles: {
  producer: string;
  consumer: string;
  amount: number;
}): Promise<readonly [EndFigures, EndFigures]> {
  await using scope = new Scope('bench-machine');
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-bench-`);
  scope.defer(() => rmSync(folder, { recursive: true }));
  const path = `${folder}/machine`;
  const host = scope.own(await XenHost.start({ runtime }));
  scope.own(await listenForGuests({ host, path }));
  const options = ['--machine', path, '--amount', `${roles.amount}`];
  const consumer = start(SHARE_ENDS, [roles.consumer, ...options]);
  const producer = start(SHARE_ENDS, [roles.producer, ...options]);
  return await Promise.all([figuresOf(producer), figuresOf(consumer)]);
}

function alone(role: string, amount: number): Promise<EndFigures> {
  return figuresOf(start(BYTE_ENDS, [role, '--amount', `${amount}`]));
}

/** A pipe of the kernel's, as a shell makes it. @returns the reader's figures */
async function throughPipe(amount: number): Promise<EndFigures> {
  const node = process.execPath;
  const line = `"${node}" "${BYTE_ENDS}" writer --amount ${amount} 2>/dev/null | "${node}" "${BYTE_ENDS}" reader`;
  return figuresOf(spawn('sh', ['-c', line], { stdio: ['ignore', 'ignore', 'pipe'] }));
}

/** A pair of Unix sockets, which is what Node makes between processes. @returns the receiver's figures */
async function throughSocket(amount: number): Promise<EndFigures> {
  const writer = start(
    BYTE_ENDS,
    ['writer', '--amount', `${amount}`],
    ['ignore', 'pipe', 'ignore'],
  );
  return figuresOf(start(BYTE_ENDS, ['receiver'], [writer.stdout!, 'ignore', 'pipe']));
}

type Stdio = NonNullable<Parameters<typeof spawn>[2]>['stdio'];

function start(
  program: string,
  args: readonly string[],
  stdio: Stdio = ['ignore', 'ignore', 'pipe'],
): ChildProcess {
  return spawn(process.execPath, [program, ...args], { stdio });
}

/** The line of JSON with which an end is done. @throws with all it said when it failed */
async function figuresOf(child: ChildProcess): Promise<EndFigures> {
  let text = '';
  child.stderr!.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`an end of the benchmark failed: ${text}`);
  return JSON.parse(text.trim().split('\n').at(-1)!) as EndFigures;
}
