// Guests: created by `xl create` from a generated configuration, with the unmodified kernel and the lab's
// image, and asked to do things over their console.
import { messageOf } from '../src/runtime/errors.ts';
import { type Runtime, until } from '../src/runtime/runtime.ts';
import type { RunResult } from './agent/protocol.ts';
import { CommandFailed, type Dom0 } from './dom0.ts';
import { DOM0_PATHS } from './dom0-image.ts';
import { guestRamdisk } from './guest-ramdisk.ts';
import { probePath } from './node-files.ts';
import { Program, type ShellDomain } from './program.ts';

/** A connector of the guest's PV display. */
export interface Connector {
  readonly id: string;
  readonly width: number;
  readonly height: number;
}

/** The guest's PV keyboard and pointer, as libxl writes it for the backend. */
export interface Keyboard {
  /** The size of an absolute pointer's area; the backend chooses when left out (xl cannot refuse it). */
  readonly absolute?: { readonly width: number; readonly height: number };
  readonly touch?: { readonly width: number; readonly height: number; readonly contacts: number };
}

export interface GuestConfig {
  readonly name: string;
  readonly type?: 'pv' | 'pvh';
  readonly memoryMib?: number;
  /** No PV display when empty or left out. */
  readonly connectors?: readonly Connector[];
  /** Those of each further PV display: Linux makes a card of its own of each. */
  readonly furtherDisplays?: readonly (readonly Connector[])[];
  /** Whether the backend allocates the displays' buffers. */
  readonly backendAllocates?: boolean;
  readonly keyboard?: Keyboard;
  /** Draws the text console with its shell on the first connector. */
  readonly terminal?: boolean;
  /** Stays paused until unpause(): for nodes that `xl` cannot write. */
  readonly paused?: boolean;
  /** Kernel modules loaded at boot; when left out those of the PV display and of evdev, or those that programs of ours need. */
  readonly modules?: readonly string[];
  /** Programs of lab/probes/ for startNode(): the guest gets them as they are built now, and Node with them. */
  readonly programs?: readonly string[];
}

const DEFAULT_MEMORY_MIB = 256;
/** Node's file alone is 86 MB, and the file system in memory gets half of it all at most. */
const NODE_MEMORY_MIB = 384;
const DEFAULT_MODULES = ['evdev', 'drm_xen_front'];
/**
 * For a PV guest that lends buffers: without Xen's own kind of DMA addresses (swiotlb-xen, which takes 64 MiB of its own
 * accord), the kernel takes its addresses for the machine's, and grants frames that are not the buffer's.
 */
const PV_NODE_OPTIONS = 'iommu=soft swiotlb=2048';
const NODE_MODULES = ['xen-evtchn', 'xen-gntalloc', 'xen-gntdev', 'xen-privcmd'];
const CREATE_TIMEOUT_MS = 120_000;
const RUN_TIMEOUT_MS = 60_000;
const GONE_TIMEOUT_MS = 90_000;
const POLL_INTERVAL_MS = 250;
/** Booting under emulation takes ten seconds when the machine is idle, and longer beside others. */
const BOOT_TIMEOUT_MS = 180_000;

function vdispl(config: GuestConfig): string[] {
  const { connectors = [], furtherDisplays = [], backendAllocates = false } = config;
  if (connectors.length === 0) return [];
  const displays = [connectors, ...furtherDisplays].map((own) => {
    const list = own.map(({ id, width, height }) => `${id}:${width}x${height}`).join(';');
    return `"backend=0,be-alloc=${backendAllocates ? 1 : 0},connectors=${list}"`;
  });
  return [`vdispl=[${displays.join(',')}]`];
}

function vkb({ keyboard }: GuestConfig): string[] {
  if (keyboard === undefined) return [];
  const { absolute, touch } = keyboard;
  const fields = ['backend-type=linux', 'backend=0'];
  if (absolute !== undefined) {
    fields.push('feature-abs-pointer=1', `width=${absolute.width}`, `height=${absolute.height}`);
  }
  if (touch !== undefined) {
    fields.push('feature-multi-touch=1', `multi-touch-num-contacts=${touch.contacts}`);
    fields.push(`multi-touch-width=${touch.width}`, `multi-touch-height=${touch.height}`);
  }
  return [`vkb=["${fields.join(',')}"]`];
}

/** The text of an xl.cfg(5) for this guest; `ramdisk` is a file in dom0. */
function xlConfig(config: GuestConfig, ramdisk: string): string {
  const node = (config.programs ?? []).length > 0;
  const { name, type = 'pv' } = config;
  const { memoryMib = node ? NODE_MEMORY_MIB : DEFAULT_MEMORY_MIB } = config;
  const { modules = node ? NODE_MODULES : DEFAULT_MODULES } = config;
  const commandLine = [
    'console=tty0 console=hvc0 rdinit=/init',
    `lab.name=${name} lab.modules=${modules.join(',')}`,
    ...(config.terminal ? ['lab.terminal'] : []),
    ...(node && type === 'pv' ? [PV_NODE_OPTIONS] : []),
  ];
  return [
    `name="${name}"`,
    `type="${type}"`,
    `kernel="${DOM0_PATHS.guestKernel}"`,
    `ramdisk="${ramdisk}"`,
    `cmdline="${commandLine.join(' ')}"`,
    `memory=${memoryMib}`,
    'vcpus=1',
    'on_crash="destroy"',
    'on_reboot="destroy"',
    ...vdispl(config),
    ...vkb(config),
    '',
  ].join('\n');
}

/** A domain as `xl list` shows it. */
export interface ListedDomain {
  readonly name: string;
  readonly domid: number;
  readonly state: string;
}

/** All domains, dom0 included. A name of `(null)` is a domain that is dying. */
export async function listDomains(dom0: Dom0): Promise<ListedDomain[]> {
  const [, ...lines] = (await dom0.output(['xl', 'list'])).trimEnd().split('\n');
  return lines.map((line) => {
    const fields = /^(.*?)\s+(\d+)\s+\d+\s+\d+\s+(\S+)\s+[\d.]+$/.exec(line);
    if (fields === null) throw new Error(`xl list says something unknown: ${line}`);
    return { name: fields[1]!, domid: Number(fields[2]), state: fields[3]! };
  });
}

/** Opens the console of a guest that was just created, as soon as xenconsoled has made it. @throws with the last refusal */
async function openConsole(
  dom0: Dom0,
  { name, domid }: { name: string; domid: number },
): Promise<void> {
  let refusal = '';
  const opened = () =>
    dom0.openConsole(domid).then(
      () => true,
      (error) => {
        refusal = messageOf(error);
        return false;
      },
    );
  const timing = { timeoutMs: RUN_TIMEOUT_MS, intervalMs: POLL_INTERVAL_MS };
  await until(dom0.runtime, opened, { what: `the console of ${name}`, ...timing }).catch(
    async () => {
      const lives = (await listDomains(dom0)).some((domain) => domain.domid === domid);
      throw new Error(`${name} has no console${lives ? '' : ', as it has ended'}: ${refusal}`);
    },
  );
}

/** A running guest. */
export class Guest implements ShellDomain {
  readonly dom0: Dom0;
  readonly name: string;
  readonly domid: number;

  private constructor(dom0: Dom0, name: string, domid: number) {
    this.dom0 = dom0;
    this.name = name;
    this.domid = domid;
  }

  /**
   * Creates a guest. Its backends must run already: `xl` gives up on a guest whose PV display has none.
   * @throws {CommandFailed} with xl's words
   */
  static async create(dom0: Dom0, config: GuestConfig): Promise<Guest> {
    const path = `/run/guests/${config.name}.cfg`;
    const { name, programs = [] } = config;
    await using ramdisk = await guestRamdisk(dom0, { name, programs });
    await dom0.writeFile(path, xlConfig(config, ramdisk.path));
    const options = config.paused ? ['-p'] : [];
    await dom0.output(['xl', 'create', ...options, path], CREATE_TIMEOUT_MS);
    const domid = Number(await dom0.output(['xl', 'domid', config.name]));
    await openConsole(dom0, { name, domid });
    return new Guest(dom0, name, domid);
  }

  get runtime(): Runtime {
    return this.dom0.runtime;
  }

  /** Lets a guest run that was created paused. */
  async unpause(): Promise<void> {
    await this.dom0.output(['xl', 'unpause', `${this.domid}`]);
  }

  /** Resolves when the guest's init answers. */
  async booted(): Promise<void> {
    await this.shell('true', BOOT_TIMEOUT_MS);
  }

  /** Resolves when the guest has written a node below its folder in xenstore, as a frontend does. */
  async published(node: string): Promise<void> {
    const exists = ['xenstore-exists', `/local/domain/${this.domid}/${node}`];
    await until(this.dom0.runtime, async () => (await this.dom0.run(exists)).code === 0, {
      what: `${this.name} publishes ${node}`,
      timeoutMs: BOOT_TIMEOUT_MS,
      intervalMs: POLL_INTERVAL_MS,
    });
  }

  /** Runs a line of shell in the guest to its end, however it ends. */
  run(command: string, timeoutMs = RUN_TIMEOUT_MS): Promise<RunResult> {
    return this.dom0.runInGuest(this.domid, { command, timeoutMs });
  }

  /** Runs a line of shell in the guest and returns its stdout. @throws {CommandFailed} unless it ends with 0 */
  async shell(command: string, timeoutMs = RUN_TIMEOUT_MS): Promise<string> {
    const result = await this.run(command, timeoutMs);
    if (result.code !== 0) throw new CommandFailed(`${this.name}: ${command}`, result);
    return result.stdout;
  }

  /** Starts a program of the guest and leaves it running. */
  start(...argv: readonly (string | number)[]): Promise<Program> {
    return Program.start(this, argv.join(' '));
  }

  /** Starts one of the programs that the guest was created with. */
  startNode(name: string, ...args: readonly (string | number)[]): Promise<Program> {
    return this.start('node', probePath(name), ...args);
  }

  /** The guest's own console, from its first message on. */
  async consoleLog(): Promise<string> {
    const path = `/var/log/xen/console/guest-${this.name}.log`;
    return (await this.dom0.readFile(path)).toString('latin1');
  }

  /** Asks the guest's kernel to power off, and waits until the domain is gone. */
  async shutdown(): Promise<void> {
    await this.dom0.output(['xl', 'shutdown', `${this.domid}`]);
    await this.gone();
  }

  /** Ends the domain on the spot, and waits until it is gone. */
  async destroy(): Promise<void> {
    await this.dom0.output(['xl', 'destroy', `${this.domid}`], CREATE_TIMEOUT_MS);
    await this.gone();
  }

  /** Resolves when no trace of the domain is left: it stays, dying, while anybody maps its pages. */
  async gone(): Promise<void> {
    const absent = async () =>
      (await listDomains(this.dom0)).every(({ domid }) => domid !== this.domid);
    await until(this.dom0.runtime, absent, {
      what: `${this.name} (domain ${this.domid}) is gone`,
      timeoutMs: GONE_TIMEOUT_MS,
      intervalMs: POLL_INTERVAL_MS,
    });
  }
}
