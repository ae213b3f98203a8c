// The two ends of a stream, each a process of its own and a domain of a machine in another one: `share-ends.js ROLE
// ...` prints its figures as a line of JSON on stderr when it is done.

import { parseArgs } from 'node:util';
import { enterMachine } from '../src/hypervisor/process/enter-machine.ts';
import { sleep, systemRuntime } from '../src/runtime/runtime.ts';
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

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    machine: { type: 'string', default: '' },
    /** Bytes in all, or seconds of a paced stream. */
    amount: { type: 'string', default: '0' },
  },
});
const [role] = positionals;
const amount = Number(values.amount);
const runtime = systemRuntime();

const ROLES: Readonly<Record<string, () => Promise<EndFigures>>> = {
  'bulk-producer': () => producing(sendBulk),
  'bulk-reader': () => consuming(touchPages),
  'bulk-copier': () => consuming(copyOut()),
  'paced-producer': () => producing(sendPaced),
  'paced-consumer': () => consuming((bytes) => void bytes[0]),
};

const figures = await ROLES[role!]!();
process.stderr.write(`${JSON.stringify(figures)}\n`);

type Send = (exporter: Exporter, to: DomId) => Promise<EndFigures>;

async function producing(send: Send): Promise<EndFigures> {
  await using machine = await enterMachine({ runtime, path: values.machine, name: 'producer' });
  await using exporter = new Exporter({ runtime, domain: machine.domain });
  return await send(exporter, await machine.resolve('consumer', { wait: true }));
}

async function sendBulk(exporter: Exporter, to: DomId): Promise<EndFigures> {
  const from = sourceBytes();
  const memory = { byteLength: CHUNK_BYTES };
  const share = await exporter.stream({ to, memory, slots: SLOTS });
  const { producer } = share;
  await share.opened();
  const send = async (total: number) => {
    for (let sent = 0; sent < total; sent += CHUNK_BYTES) {
      const frame = producer.tryAcquire() ?? (await producer.acquire());
      const at = sent % SOURCE_BYTES;
      frame.bytes.set(from.subarray(at, at + CHUNK_BYTES));
      frame.publish();
    }
    await producer.drained();
    return { bytes: total, frames: total / CHUNK_BYTES };
  };
  // Every page of the slots is touched by both sides before it counts.
  await send(SOURCE_BYTES);
  const figures = await measured(() => send(amount));
  producer.end();
  return figures;
}

/** A picture of 1920x1080 sixty times a second, for `amount` seconds. */
async function sendPaced(exporter: Exporter, to: DomId): Promise<EndFigures> {
  const memory = { byteLength: PICTURE_BYTES };
  const share = await exporter.stream({ to, memory, slots: 3, whenFull: 'drop' });
  const { producer } = share;
  await share.opened();
  const figures = await measured(async () => {
    const startMs = runtime.nowMs();
    const frames = amount * 60;
    for (let count = 0; count < frames; count++) {
      await sleep(runtime, Math.max(0, startMs + (count * 1000) / 60 - runtime.nowMs()));
      const frame = producer.tryAcquire() ?? (await producer.acquire());
      frame.bytes[0] = count;
      frame.publish();
    }
    return { bytes: frames * PICTURE_BYTES, frames };
  });
  producer.end();
  await producer.drained();
  return figures;
}

async function consuming(use: (bytes: Uint8Array) => void): Promise<EndFigures> {
  await using machine = await enterMachine({ runtime, path: values.machine, name: 'consumer' });
  const from = await machine.resolve('producer', { wait: true });
  const policy = { accept: [{ ...DEFAULT_RULE, from }] };
  await using importer = await Importer.open({ runtime, domain: machine.domain, policy });
  const { value: offered } = await importer.events().next();
  await using share = await importer.open(offered.share.id);
  return await measured(async () => {
    let bytes = 0;
    let frames = 0;
    for await (const frame of share.frames) {
      use(frame.bytes);
      bytes += frame.byteLength;
      frames += 1;
    }
    return { bytes, frames };
  });
}

function copyOut(): (bytes: Uint8Array) => void {
  const target = new Uint8Array(SOURCE_BYTES);
  let at = 0;
  return (bytes) => {
    target.set(bytes, at);
    at = (at + bytes.length) % SOURCE_BYTES;
  };
}
