// The Xen host: one QEMU process that boots the prepared image. Xen is QEMU's multiboot kernel, Linux
// and dom0's file system are its two modules; there is no disk. QEMU cannot outlive this process.
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { messageOf } from '../src/runtime/errors.ts';
import { type Runtime, sleep } from '../src/runtime/runtime.ts';
import { AGENT_PORT } from './agent/protocol.ts';
import { Dom0 } from './dom0.ts';
import type { Prepared } from './prepare.ts';
import { lastLines, newSerialLog, serialText } from './serial-log.ts';

/** How dom0 runs. Guests are PV or PVH under either. */
export type MachineMode = 'pv-dom0' | 'pvh-dom0';

export const MACHINE_MODES: readonly MachineMode[] = ['pv-dom0', 'pvh-dom0'];

export interface MachineOptions {
  readonly prepared: Prepared;
  readonly runtime: Runtime;
  readonly mode: MachineMode;
  /** The machine's whole memory. */
  readonly memoryMib?: number;
  /** The port of this machine's loopback that leads to dom0's port 8470; 0 or none: a free one. */
  readonly daemonPort?: number;
  /** Counts instructions for time (2 ns each), so that speeds do not depend on this machine's load. */
  readonly countInstructions?: boolean;
  readonly signal?: AbortSignal;
}

/** The port of the daemon in dom0. */
export const DAEMON_PORT = 8470;

const DEFAULT_MEMORY_MIB = 4096;
const DOM0_MEMORY_MIB = 2560;
const BOOT_TIMEOUT_MS = 240_000;
const POLL_INTERVAL_MS = 250;
const STOP_TIMEOUT_MS = 10_000;
const FAILURE = /^lab: failed: /m;
/** What init and the agent say when guests can be created and the agent can be asked. */
const SIGNS_OF_LIFE = ['lab: Xen is up', 'lab: the agent listens'];

/** AMD's virtualisation is what QEMU emulates, and PVH needs it. A PV dom0 crashes early on richer processors. */
const PROCESSOR = 'qemu64,+svm,+npt';

interface Platform {
  readonly qemu: readonly string[];
  /** Options of Xen. */
  readonly xen: readonly string[];
}

/**
 * A PVH dom0 gets the DMA and the interrupts of its devices only with an IOMMU, and without one Xen does not
 * even show it the firmware's tables. Xen would share its page tables with that IOMMU, which
 * is Intel's beside an AMD processor, and cannot read them: each has its own.
 * Every page that such a dom0 maps or unmaps of a guest has Xen flush the processors that run dom0, one after the
 * other; on a busy computer an emulated processor may wait milliseconds for another. With one
 * processor of its own dom0 needs none of that: `xl create` unmaps 12800 pages one by one.
 */
const PLATFORMS: Record<MachineMode, Platform> = {
  'pv-dom0': { qemu: ['-machine', 'pc'], xen: [] },
  'pvh-dom0': {
    qemu: ['-machine', 'q35', '-device', 'intel-iommu,intremap=on,aw-bits=48'],
    xen: ['dom0=pvh', 'iommu=no-sharept', 'dom0_max_vcpus=1', 'dom0_vcpus_pin'],
  },
};

const TOKEN_BYTES = 16;

/** A port of the loopback that nobody listens on now. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}

interface BootParameters {
  readonly token: string;
  readonly serialLog: string;
  readonly agentPort: number;
  readonly daemonPort: number;
}

function qemuArguments(options: MachineOptions, parameters: BootParameters): string[] {
  const { prepared, mode, memoryMib = DEFAULT_MEMORY_MIB, countInstructions } = options;
  const platform = PLATFORMS[mode];
  const xen = [
    // Dumps of grant tables need room in the ring that `xl dmesg` reads.
    'console=com1 com1=115200,8n1 conring_size=4m',
    `dom0_mem=${DOM0_MEMORY_MIB}M,max:${DOM0_MEMORY_MIB}M`,
    ...platform.xen,
  ];
  // No console of dom0 on a KMS card: what is on its screen is what somebody in dom0 shows there.
  const linux = [
    'console=hvc0 rdinit=/init drm_kms_helper.fbdev_emulation=0',
    `lab.token=${parameters.token}`,
  ].join(' ');
  const forwards = [
    `hostfwd=tcp:127.0.0.1:${parameters.agentPort}-:${AGENT_PORT}`,
    `hostfwd=tcp:127.0.0.1:${parameters.daemonPort}-:${DAEMON_PORT}`,
  ];
  const time = countInstructions
    ? ['-accel', 'tcg,thread=single', '-icount', 'shift=1']
    : ['-accel', 'tcg,thread=multi'];
  return [
    ...time,
    ...platform.qemu,
    ...['-cpu', PROCESSOR, '-smp', '2', '-m', `${memoryMib}`],
    ...['-display', 'none', '-nodefaults', '-no-reboot', '-serial', `file:${parameters.serialLog}`],
    ...['-kernel', prepared.hypervisor, '-append', xen.join(' ')],
    ...['-initrd', `${prepared.kernel} ${linux},${prepared.dom0Image}`],
    // `restrict`: the machine can be reached through the two ports, and can reach nothing itself.
    ...['-netdev', ['user,id=net,restrict=on', ...forwards].join(',')],
    ...['-device', 'e1000,netdev=net,romfile='],
  ];
}

/** A Xen host that runs. Closing it ends QEMU; nothing of it stays but its log. */
export class Machine implements AsyncDisposable {
  readonly dom0: Dom0;
  /** The port of this machine's loopback that leads to the daemon's in dom0. */
  readonly daemonPort: number;
  readonly serialLog: string;
  readonly #qemu: ChildProcess;
  readonly #runtime: Runtime;
  readonly #ended: Promise<void>;
  #complaint = '';

  private constructor(options: MachineOptions, qemu: ChildProcess, parameters: BootParameters) {
    this.serialLog = parameters.serialLog;
    this.daemonPort = parameters.daemonPort;
    this.#runtime = options.runtime;
    this.#qemu = qemu;
    this.dom0 = new Dom0({
      runtime: options.runtime,
      agentPort: parameters.agentPort,
      token: parameters.token,
      lastWords: () => this.lastWords(),
    });
    qemu.stderr?.on('data', (chunk: Buffer) => {
      this.#complaint += chunk.toString('utf8');
    });
    this.#ended = new Promise((resolve) => {
      qemu.once('error', (error) => {
        this.#complaint += messageOf(error);
        resolve();
      });
      qemu.once('close', () => resolve());
    });
  }

  /**
   * Boots, and resolves when dom0 can create guests.
   * @throws when QEMU ends, dom0's init fails, or it takes too long: the message has the last lines
   */
  static async boot(options: MachineOptions): Promise<Machine> {
    const parameters = {
      token: Buffer.from(options.runtime.random.bytes(TOKEN_BYTES)).toString('hex'),
      serialLog: newSerialLog(options.prepared.logs, options.mode),
      agentPort: await freePort(),
      daemonPort: options.daemonPort || (await freePort()),
    };
    // setpriv: the kernel ends QEMU when this process ends, however it ends.
    const argv = ['--pdeathsig', 'KILL', 'qemu-system-x86_64'];
    const qemu = spawn('setpriv', [...argv, ...qemuArguments(options, parameters)], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const machine = new Machine(options, qemu, parameters);
    try {
      await machine.#becomeReady(options.signal);
      return machine;
    } catch (error) {
      await machine.close();
      throw error;
    }
  }

  get running(): boolean {
    return this.#qemu.exitCode === null && this.#qemu.signalCode === null;
  }

  /** The last lines that Xen and dom0's kernel said, and QEMU's own complaint. */
  lastWords(): string {
    const complaint = this.#complaint.trim();
    return `${lastLines(this.serialLog)}${complaint === '' ? '' : `\nQEMU says: ${complaint}`}`;
  }

  async close(): Promise<void> {
    this.dom0.close();
    if (!this.running) return;
    this.#qemu.kill('SIGTERM');
    const timer = this.#runtime.after(STOP_TIMEOUT_MS, () => this.#qemu.kill('SIGKILL'));
    await this.#ended;
    timer.cancel();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #isUp(): Promise<boolean> {
    const serial = serialText(this.serialLog);
    if (FAILURE.test(serial)) throw new Error(`dom0 did not come up:\n${this.lastWords()}`);
    return SIGNS_OF_LIFE.every((sign) => serial.includes(sign)) && (await this.dom0.answers());
  }

  async #becomeReady(signal: AbortSignal | undefined): Promise<void> {
    const deadlineMs = this.#runtime.nowMs() + BOOT_TIMEOUT_MS;
    while (!(await this.#isUp())) {
      signal?.throwIfAborted();
      if (!this.running) throw new Error(`QEMU ended while booting:\n${this.lastWords()}`);
      if (this.#runtime.nowMs() > deadlineMs) {
        const seconds = BOOT_TIMEOUT_MS / 1000;
        throw new Error(`dom0 was not up after ${seconds} s; last lines:\n${this.lastWords()}`);
      }
      await sleep(this.#runtime, POLL_INTERVAL_MS, signal);
    }
  }
}
