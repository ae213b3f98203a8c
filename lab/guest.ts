// Guests: created by `xl create` from a generated configuration, with the unmodified kernel and the lab's
// image, and asked to do things over their console.
import { until } from '../src/runtime/runtime.ts';
import type { RunResult } from './agent/protocol.ts';
import { CommandFailed, type Dom0 } from './dom0.ts';
import { DOM0_PATHS } from './dom0-image.ts';

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
  /** Whether the backend allocates the display's buffers. */
  readonly backendAllocates?: boolean;
  readonly keyboard?: Keyboard;
  /** Draws the text console with its shell on the first connector. */
  readonly terminal?: boolean;
  /** Stays paused until unpause(): for nodes that `xl` cannot write. */
  readonly paused?: boolean;
  /** Kernel modules loaded at boot; those of the PV display and of evdev when left out. */
  readonly modules?: readonly string[];
}

const DEFAULT_MEMORY_MIB = 256;
const DEFAULT_MODULES = ['evdev', 'drm_xen_front'];
const CREATE_TIMEOUT_MS = 120_000;
const RUN_TIMEOUT_MS = 60_000;
const GONE_TIMEOUT_MS = 90_000;
const POLL_INTERVAL_MS = 250;
/** Booting under emulation takes ten seconds when the machine is idle, and longer beside others. */
const BOOT_TIMEOUT_MS = 180_000;

function vdispl({ connectors = [], backendAllocates = false }: GuestConfig): string[] {
  if (connectors.length === 0) return [];
  const list = connectors.map(({ id, width, height }) => `${id}:${width}x${height}`).join(';');
  return [`vdispl=["backend=0,be-alloc=${backendAllocates ? 1 : 0},connectors=${list}"]`];
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

/** The text of an xl.cfg(5) for this guest. */
export function xlConfig(config: GuestConfig): string {
  const { name, type = 'pv', memoryMib = DEFAULT_MEMORY_MIB, modules = DEFAULT_MODULES } = config;
  const commandLine = [
    'console=tty0 console=hvc0 rdinit=/init',
    `lab.name=${name} lab.modules=${modules.join(',')}`,
    ...(config.terminal ? ['lab.terminal'] : []),
  ];
  return [
    `name="${name}"`,
    `type="${type}"`,
    `kernel="${DOM0_PATHS.guestKernel}"`,
    `ramdisk="${DOM0_PATHS.guestImage}"`,
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

/** A program that was left running in a guest; its output can be read while it runs. */
export class GuestProgram {
  readonly #guest: Guest;
  readonly #pid: number;
  readonly #output: string;

  constructor(guest: Guest, pid: number, output: string) {
    this.#guest = guest;
    this.#pid = pid;
    this.#output = output;
  }

  /** What it has written so far, stdout and stderr. */
  output(): Promise<string> {
    return this.#guest.shell(`cat ${this.#output}`);
  }

  /** The JSON lines it has written so far. @throws when it wrote something else, which is its complaint */
  async lines<T>(): Promise<T[]> {
    const text = await this.output();
    const complete = text.slice(0, text.lastIndexOf('\n') + 1);
    return complete
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => parseLine<T>(line, text));
  }

  /** Resolves with the lines when there are at least `count`. */
  async waitForLines<T>(count: number, timeoutMs: number): Promise<T[]> {
    // The console is slow: the lines are counted in the guest, and fetched once.
    const enough = async () => {
      if (Number(await this.#guest.shell(`wc -l <${this.#output}`)) >= count) return true;
      if (!(await this.running())) {
        throw new Error(`the program ended too early; it said: ${await this.output()}`);
      }
      return false;
    };
    await until(this.#guest.dom0.runtime, enough, {
      what: `${count} lines from a program in ${this.#guest.name}`,
      timeoutMs,
      intervalMs: POLL_INTERVAL_MS,
    });
    return this.lines<T>();
  }

  async running(): Promise<boolean> {
    // A child that ended stays as a zombie until the shell that is its parent waits: look at its state.
    const state = await this.#guest.run(`grep -q '^State:.[^ZX]' /proc/${this.#pid}/status`);
    return state.code === 0;
  }

  /** Sends SIGTERM and waits for the end. */
  async stop(timeoutMs = RUN_TIMEOUT_MS): Promise<void> {
    await this.#guest.run(`kill ${this.#pid}`);
    await until(this.#guest.dom0.runtime, async () => !(await this.running()), {
      what: `the end of a program in ${this.#guest.name}`,
      timeoutMs,
      intervalMs: POLL_INTERVAL_MS,
    });
  }
}

function parseLine<T>(line: string, text: string): T {
  try {
    return JSON.parse(line) as T;
  } catch {
    throw new Error(`a program in the guest complains: ${text}`);
  }
}

/** A running guest. */
export class Guest {
  readonly dom0: Dom0;
  readonly name: string;
  readonly domid: number;
  #programs = 0;

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
    await dom0.writeFile(path, xlConfig(config));
    const options = config.paused ? ['-p'] : [];
    await dom0.output(['xl', 'create', ...options, path], CREATE_TIMEOUT_MS);
    const domid = Number(await dom0.output(['xl', 'domid', config.name]));
    return new Guest(dom0, config.name, domid);
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
  async start(...argv: readonly (string | number)[]): Promise<GuestProgram> {
    const output = `/tmp/program-${this.#programs++}`;
    const pid = await this.shell(`${argv.join(' ')} >${output} 2>&1 & echo $!`);
    return new GuestProgram(this, Number(pid), output);
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
