// The program that the tests start as a process of its own: it enters a machine and does what it is told, a
// line of JSON for each step on stdin, a line of JSON with the result on stdout.

import { createInterface } from 'node:readline';
import {
  type EnteredMachine,
  enterMachine,
} from '../../../src/hypervisor/process/enter-machine.ts';
import { SysError } from '../../../src/runtime/errors.ts';
import { systemRuntime } from '../../../src/runtime/runtime.ts';
import type { EventChannel, ForeignMapping, SharedPages } from '../../../src/xen/domain.ts';
import { domId, gref, port } from '../../../src/xen/ids.ts';

const runtime = systemRuntime();
const [path, name] = process.argv.slice(2) as [string, string];

let machine: EnteredMachine;
const shared: SharedPages[] = [];
const mapped: ForeignMapping[] = [];
const views: Uint8Array[] = [];
const channels: EventChannel[] = [];
let events = 0;
let storeEvents = 0;

/** Each step has those arguments that it needs. */
interface Step {
  readonly do: string;
  readonly name: string;
  readonly wait: boolean;
  readonly domid: number;
  readonly pages: number;
  readonly writable: boolean;
  readonly fill: number;
  readonly refs: readonly number[];
  readonly of: 'shared' | 'mapped' | 'view';
  readonly index: number;
  readonly byte: number;
  readonly value: number;
  /** A port of the other domain. */
  readonly remote: number;
  readonly path: string;
  readonly text: string;
}

const steps: Record<string, (step: Step) => unknown> = {
  enter: async () => {
    machine = await enterMachine({ runtime, path, name });
    return machine.domain.domid;
  },
  resolve: (step) => machine.resolve(step.name, { wait: step.wait }),
  share: async ({ domid, pages, writable, fill }) => {
    const made = await machine.domain.grants.share({ domid: domId(domid), pages, writable });
    made.bytes.fill(fill);
    shared.push(made);
    return made.refs;
  },
  map: async ({ domid, refs, writable }) => {
    const made = await machine.domain.foreign.map({
      domid: domId(domid),
      refs: refs.map(gref),
      writable,
    });
    mapped.push(made);
    views.push(made.bytes);
    return made.pages;
  },
  unmap: ({ index }) => mapped[index]![Symbol.asyncDispose](),
  end: async ({ index }) => (await shared[index]!.end()).heldPages,
  peek: ({ of, index, byte }) => bytesOf(of, index)[byte],
  poke: ({ of, index, byte, value }) => {
    bytesOf(of, index)[byte] = value;
  },
  offer: async ({ domid }) => {
    const handler = () => void events++;
    const channel = await machine.domain.events.allocUnbound({ remote: domId(domid), handler });
    channels.push(channel);
    return channel.port;
  },
  bind: async ({ domid, remote }) => {
    const handler = () => void events++;
    const at = { remote: domId(domid), remotePort: port(remote), handler };
    channels.push(await machine.domain.events.bindInterdomain(at));
  },
  notify: () => channels[0]!.notify(),
  events: () => events,
  read: (step) => machine.domain.store.read(step.path),
  write: (step) => machine.domain.store.write(step.path, step.text),
  watch: async (step) => {
    await machine.domain.store.watch(step.path, () => void storeEvents++);
  },
  storeEvents: () => storeEvents,
  stopped: () => machine.domain.stopped.aborted,
  leave: () => machine[Symbol.asyncDispose](),
  spin: () => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  },
};

function bytesOf(of: Step['of'], index: number): Uint8Array {
  if (of === 'shared') return shared[index]!.bytes;
  return of === 'mapped' ? mapped[index]!.bytes : views[index]!;
}

async function take(step: Step): Promise<object> {
  try {
    return { result: (await steps[step.do]!(step)) ?? null };
  } catch (error) {
    const name = error instanceof SysError ? error.errnoName : `${error}`;
    return { error: name };
  }
}

for await (const line of createInterface(process.stdin)) {
  const { id, ...step } = JSON.parse(line);
  void take(step).then((answer) => process.stdout.write(`${JSON.stringify({ id, ...answer })}\n`));
}
process.exit();
