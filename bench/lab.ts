// What the daemon costs on a real Xen, in a machine that counts instructions (2 ns each), so that the figures
// depend on nothing but the programs: page flips of an unmodified guest on a card, a flip of ours beside the bare
// ioctl loop in C on the same card, and a buffer of 2025 refs beside the bare ioctls in C. Each figure stands beside
// its limit: the C program in the same machine, or what the field's C++ backend (displ_be) was seen to need in such
// a machine, its set-up of two buffers included (640x480, 1280x720 and 1920x1080; no figure for be-alloc at 1280x720).

import assert from 'node:assert/strict';
import { Daemon } from '../lab/daemon.ts';
import type { Dom0 } from '../lab/dom0.ts';
import { type GntdevCost, gntdevBare, grantPages } from '../lab/gntdev-bare.ts';
import { Guest } from '../lab/guest.ts';
import { Machine } from '../lab/machine.ts';
import { deployProbe } from '../lab/payload.ts';
import { prepare } from '../lab/prepare.ts';
import { systemRuntime, until } from '../src/runtime/runtime.ts';
import { Scope } from '../src/runtime/scope.ts';

/** displ_be's CPU per flip, in milliseconds. */
const PEER_MS: Readonly<Record<string, { copying: number; beAlloc?: number }>> = {
  '640x480': { copying: 1.95, beAlloc: 1.25 },
  '1280x720': { copying: 4.85 },
  '1920x1080': { copying: 12.85, beAlloc: 7.08 },
};
/** Before those that count: the engine compiles what runs often. */
const WARM_UP_FLIPS = 1500;
/** A run of each, so that the difference has no set-up in it. */
const FEW_FLIPS = 60;
const MANY_FLIPS = 460;
const CARD_FLIPS = 300;
const CARD_MODE = '1024x768';
/** A buffer of 1920x1080 at 32 bits per pixel. */
const REFS = 2025;
const ROUNDS = 20;
const RUN_TIMEOUT_MS = 400_000;
const CONNECT_TIMEOUT_MS = 200_000;
const POLL_INTERVAL_MS = 1000;

type Figures = Record<string, number>;

interface Cost {
  readonly userMs: number;
  readonly systemMs: number;
}

function progress(line: string): void {
  process.stderr.write(`  ${line}\n`);
}

/** Figures by name; the unit is at the end of the name. A ratio is ours to the other's. */
export async function benchLab(): Promise<Figures> {
  await using scope = new Scope('bench-lab');
  const runtime = systemRuntime();
  const prepared = await prepare({ progress });
  progress(`booting a machine that counts instructions (its log is in ${prepared.logs})`);
  const mode = 'pv-dom0';
  const machine = await Machine.boot({ prepared, runtime, mode, countInstructions: true });
  scope.own(machine);
  const { dom0 } = machine;
  await dom0.shell('modprobe vkms');
  return {
    ...(await buffers(dom0)),
    ...(await cardFlips(dom0)),
    ...(await guestFlips(machine)),
  };
}

/** A buffer of a guest's refs: mapped and given back. */
async function buffers(dom0: Dom0): Promise<Figures> {
  progress(`buffers of ${REFS} refs`);
  const guest = await Guest.create(dom0, { name: 'granter', modules: [] });
  await guest.booted();
  await guest.shell('modprobe xen-gntalloc');
  await guest.shell(`echo ${2 * REFS} >/sys/module/xen_gntalloc/parameters/limit`);
  const { program, refs } = await grantPages(guest, REFS);
  const { domid } = guest;
  const bare = await gntdevBare(dom0, { what: 'map', domid, refs, rounds: ROUNDS });
  assert(typeof bare === 'object', `gntdev-bare: ${bare}`);
  const probe = await deployProbe(dom0, 'from-refs');
  const line = `echo ${refs.join(' ')} | node ${probe} ${domid} ${ROUNDS}`;
  const ours = JSON.parse(await dom0.shell(line, RUN_TIMEOUT_MS)) as GntdevCost;
  assert.deepEqual([ours.refs, ours.sum], [bare.refs, bare.sum], 'both read the same pages');
  await program.stop();
  await guest.destroy();
  return {
    [`${REFS}_refs_cpu_ms`]: cpuMs(ours) / ROUNDS,
    [`${REFS}_refs_bare_c_cpu_ms`]: cpuMs(bare) / ROUNDS,
    [`${REFS}_refs_ratio_limit_1.3`]: cpuMs(ours) / cpuMs(bare),
  };
}

/** A flip on the card: the whole KMS output, beside the loop in C. */
async function cardFlips(dom0: Dom0): Promise<Figures> {
  progress(`flips on the card, ${CARD_MODE}`);
  const bare = JSON.parse(
    await dom0.output(['kms-flip-bare', '0', `${CARD_FLIPS}`, 'atomic'], RUN_TIMEOUT_MS),
  ) as Cost;
  const probe = await deployProbe(dom0, 'kms');
  const argv = ['node', probe, `${CARD_FLIPS}`, CARD_MODE];
  const ours = JSON.parse(await dom0.output(argv, RUN_TIMEOUT_MS)) as Cost;
  return {
    kms_flip_cpu_ms: cpuMs(ours) / CARD_FLIPS,
    kms_flip_bare_c_cpu_ms: cpuMs(bare) / CARD_FLIPS,
    'kms_flip_ratio_limit_1.5': cpuMs(ours) / cpuMs(bare),
  };
}

/** The daemon's CPU per flip of a guest that draws into lent dumb buffers, by the size of the picture. */
async function guestFlips(machine: Machine): Promise<Figures> {
  const figures: Figures = {};
  const daemon = await Daemon.start(machine, '--output', 'kms:card0');
  for (const [size, { copying, beAlloc }] of Object.entries(PEER_MS)) {
    progress(`page flips of a guest, ${size}`);
    const { perFlipMs, bytesCopied } = await flipsOf(machine, daemon, size);
    figures[`${size}_flip_cpu_ms`] = perFlipMs;
    figures[`${size}_flip_limit_below_copying_peer_ms`] = copying;
    if (beAlloc !== undefined) {
      figures[`${size}_flip_ratio_to_lending_peer_limit_1.5`] = perFlipMs / beAlloc;
    }
    figures[`${size}_bytes_copied`] = bytesCopied;
  }
  await daemon.stop();
  return figures;
}

async function flipsOf({ dom0 }: Machine, daemon: Daemon, size: string) {
  const [width, height] = size.split('x').map(Number);
  const guest = await Guest.create(dom0, {
    name: `flipper-${size}`,
    type: 'pvh',
    backendAllocates: true,
    connectors: [{ id: 'Virtual-1', width: width!, height: height! }],
  });
  await guest.booted();
  const connected = async () => (await daemon.guest(guest.domid))?.displays.length === 1;
  await until(dom0.runtime, connected, {
    what: 'the display is connected',
    timeoutMs: CONNECT_TIMEOUT_MS,
    intervalMs: POLL_INTERVAL_MS,
  });
  const flip = async (count: number) => {
    const before = await daemonCpuMs(dom0, daemon);
    await guest.shell(`flip 0 XR24 ${count} 0`, RUN_TIMEOUT_MS);
    return (await daemonCpuMs(dom0, daemon)) - before;
  };
  await flip(WARM_UP_FLIPS);
  const few = await flip(FEW_FLIPS);
  const many = await flip(MANY_FLIPS);
  const display = (await daemon.guest(guest.domid))!.displays[0]!;
  assert(display.flips >= MANY_FLIPS, `only ${display.flips} flips`);
  await guest.destroy();
  return {
    perFlipMs: (many - few) / (MANY_FLIPS - FEW_FLIPS),
    bytesCopied: display.bytesCopied,
  };
}

/** CPU time of all of the daemon's threads so far. */
async function daemonCpuMs(dom0: Dom0, daemon: Daemon): Promise<number> {
  const pid = await daemon.pid();
  const lines = (await dom0.shell(`cat /proc/${pid}/task/*/schedstat`)).trimEnd().split('\n');
  return lines.reduce((sum, line) => sum + Number(line.split(' ')[0]) / 1e6, 0);
}

function cpuMs({ userMs, systemMs }: Cost): number {
  return userMs + systemMs;
}
