// How fast the display path is: frontend, ring, event channel, backend, a null output, event, frontend, all
// in one thread on the hypervisor in this process; and what a buffer costs in time and memory.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { DisplayBackend } from '../src/display/backend.ts';
import { DisplayFrontend } from '../src/display/frontend.ts';
import type { BufferShape, GuestDisplay } from '../src/display/guest-display.ts';
import { XRGB8888 } from '../src/display/pixel-format.ts';
import { XenHost } from '../src/hypervisor/xen-host.ts';
import { NullOutput } from '../src/outputs/null.ts';
import { type Runtime, systemRuntime } from '../src/runtime/runtime.ts';
import { Scope } from '../src/runtime/scope.ts';
import { BackendBus } from '../src/xen/xenbus/backend-bus.ts';
import { Guests } from '../src/xen/xenbus/guests.ts';
import { DEFAULT_BUDGET } from '../src/zcopy/budget.ts';
import { openGuest } from '../src/zcopy/guest.ts';
import { Ledger } from '../src/zcopy/ledger.ts';

const WARM_UP_FLIPS = 20_000;
const FLIPS = 200_000;
/** Flips between two looks at the heap: few enough that no garbage collection comes between. */
const BURST_FLIPS = 500;
const BURSTS = 20;
const BUFFERS = 8;
/** Buffers made and given back before the measured ones, so that compiled code is measured. */
const WARM_UP_ROUNDS = 50;
const ROUNDS = 100;

const FULL_HD: BufferShape = { width: 1920, height: 1080, format: XRGB8888 };
const SIZES: readonly BufferShape[] = [
  { width: 640, height: 480, format: XRGB8888 },
  { width: 3840, height: 2160, format: XRGB8888 },
];

interface Bench {
  readonly runtime: Runtime;
  readonly display: GuestDisplay;
  readonly collectGarbage: () => void;
}

/** Figures by name; the unit is at the end of the name. */
export async function benchFlip(): Promise<Record<string, number>> {
  await using scope = new Scope('bench-flip');
  const bench = await open(scope);
  const figures: Record<string, number> = {};
  for (const shape of SIZES) {
    const flips = await measureFlips(bench, shape);
    for (const [name, value] of Object.entries(flips)) {
      figures[`${shape.width}x${shape.height}_${name}`] = value;
    }
  }
  return { ...figures, ...(await measureBuffers(bench)) };
}

/** A host, the backend with a null output, and a connected guest; released by the scope. */
async function open(scope: Scope): Promise<Bench> {
  const runtime = systemRuntime();
  const host = scope.own(await XenHost.start({ runtime }));
  const ledger = new Ledger();
  const guests = new Guests((domid) => {
    const budget = DEFAULT_BUDGET;
    return openGuest({ runtime, domain: host.dom0, ledger, budget, domid, name: 'bench' }).context;
  });
  const driver = new DisplayBackend({ output: new NullOutput({ runtime }) });
  scope.own(await BackendBus.open({ runtime, domain: host.dom0, driver, guests }));
  const displays = [{ uniqueId: 'bench', width: 3840, height: 2160 }];
  const guest = await host.createGuest({ name: 'bench', displays });
  const domain = host.enter(guest);
  const display = await new Promise<GuestDisplay>((resolve, reject) => {
    const options = { runtime, domain, onConnected: resolve, onFailed: reject };
    DisplayFrontend.open(options).then((frontend) => scope.own(frontend), reject);
  });
  setFlagsFromString('--expose-gc');
  return { runtime, display, collectGarbage: runInNewContext('gc') as () => void };
}

async function measureFlips(bench: Bench, shape: BufferShape): Promise<Record<string, number>> {
  const { runtime, display, collectGarbage } = bench;
  const buffer = await display.createBuffer(shape);
  const framebuffer = await display.attach(buffer);
  await display.setMode(0, framebuffer);
  const flip = (count: number): Promise<void> =>
    new Promise((resolve, reject) => {
      let left = count;
      const next = (error: Error | undefined) => {
        left -= 1;
        if (error) reject(error);
        else if (left === 0) resolve();
        else display.flip(0, framebuffer, next);
      };
      display.flip(0, framebuffer, next);
    });
  await flip(WARM_UP_FLIPS);
  collectGarbage();
  const heapBefore = process.memoryUsage().heapUsed;
  const cpuBefore = process.cpuUsage();
  const startMs = runtime.nowMs();
  await flip(FLIPS);
  const elapsedMs = runtime.nowMs() - startMs;
  const { user, system } = process.cpuUsage(cpuBefore);
  collectGarbage();
  const heapAfter = process.memoryUsage().heapUsed;
  let garbage = Number.POSITIVE_INFINITY;
  for (let burst = 0; burst < BURSTS; burst++) {
    const before = process.memoryUsage().heapUsed;
    await flip(BURST_FLIPS);
    const allocated = process.memoryUsage().heapUsed - before;
    if (allocated >= 0) garbage = Math.min(garbage, allocated);
  }
  await display.setMode(0, undefined);
  await display.destroyBuffer(buffer);
  return {
    flips_per_second: (FLIPS * 1000) / elapsedMs,
    cpu_per_flip_us: (user + system) / FLIPS,
    heap_growth_per_flip_bytes: (heapAfter - heapBefore) / FLIPS,
    garbage_per_flip_bytes: garbage / BURST_FLIPS,
  };
}

async function measureBuffers(bench: Bench): Promise<Record<string, number>> {
  const { runtime, display, collectGarbage } = bench;
  for (let round = 0; round < WARM_UP_ROUNDS; round++) {
    await display.destroyBuffer(await display.createBuffer(FULL_HD));
  }
  let createMs = 0;
  let destroyMs = 0;
  const cpuBefore = process.cpuUsage();
  for (let round = 0; round < ROUNDS; round++) {
    const startMs = runtime.nowMs();
    const buffer = await display.createBuffer(FULL_HD);
    const createdMs = runtime.nowMs();
    await display.destroyBuffer(buffer);
    createMs += createdMs - startMs;
    destroyMs += runtime.nowMs() - createdMs;
  }
  const { user, system } = process.cpuUsage(cpuBefore);
  collectGarbage();
  const before = process.memoryUsage();
  const buffers = [];
  for (let count = 0; count < BUFFERS; count++) buffers.push(await display.createBuffer(FULL_HD));
  collectGarbage();
  const after = process.memoryUsage();
  for (const buffer of buffers) await display.destroyBuffer(buffer);
  const heap = after.heapUsed - before.heapUsed;
  const arrays = after.arrayBuffers - before.arrayBuffers;
  return {
    '1920x1080_create_ms': createMs / ROUNDS,
    '1920x1080_destroy_ms': destroyMs / ROUNDS,
    '1920x1080_create_and_destroy_cpu_ms': (user + system) / 1000 / ROUNDS,
    '1920x1080_buffer_heap_bytes': heap / BUFFERS,
    '1920x1080_buffer_arrays_bytes': arrays / BUFFERS,
  };
}
