// One lab for many processes: it boots a machine of a mode when somebody first asks for that mode, and
// lends it out over a Unix socket. Only one machine runs at a time, so ask for one mode after the other.
// A question is a line with the mode; the answer is a line of JSON, a Lent.
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { messageOf } from '../src/runtime/errors.ts';
import { MACHINE_MODES, Machine, type MachineMode, type MachineOptions } from './machine.ts';

/** Names the supervisor's socket to the processes that ask it. */
export const SUPERVISOR_VARIABLE = 'XEN_ZCOPY_LAB';

/** What a process needs to use the machine. */
export interface Whereabouts {
  readonly mode: MachineMode;
  readonly agentPort: number;
  readonly daemonPort: number;
  readonly token: string;
  readonly serialLog: string;
}

/** The answer: where the machine is, or why there is none. */
export type Lent = Whereabouts | { readonly error: string };

export interface SupervisorOptions extends Omit<MachineOptions, 'mode'> {
  /** Gets a line for every boot. */
  readonly progress: (line: string) => void;
}

function whereabouts(machine: Machine, mode: MachineMode): Whereabouts {
  const { dom0, daemonPort, serialLog } = machine;
  return { mode, agentPort: dom0.agentPort, daemonPort, token: dom0.token, serialLog };
}

export class Supervisor implements AsyncDisposable {
  readonly #options: SupervisorOptions;
  readonly #folder = mkdtempSync(`${tmpdir()}/xen-zcopy-lab-`);
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #mode: MachineMode | undefined;
  /** Of machines that are closed. */
  #lostBefore = 0;
  #machine: Promise<Machine> | undefined;
  /** Questions are answered one after the other. */
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(options: SupervisorOptions) {
    this.#options = options;
    // A client closes its side behind the question, and the answer may take a boot.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#serve(socket));
  }

  static async open(options: SupervisorOptions): Promise<Supervisor> {
    const supervisor = new Supervisor(options);
    await new Promise<void>((resolve, reject) => {
      supervisor.#server.once('error', reject);
      supervisor.#server.listen(`${supervisor.#folder}/socket`, resolve);
    });
    return supervisor;
  }

  /** The environment for processes that ask this supervisor. */
  get environment(): NodeJS.ProcessEnv {
    return { [SUPERVISOR_VARIABLE]: `${this.#folder}/socket` };
  }

  /**
   * The machine of this mode; the one before, of another mode, is closed.
   * @throws what the boot threw, which is not tried a second time
   */
  machine(mode: MachineMode): Promise<Machine> {
    const turn = this.#queue.then(() => this.#switch(mode));
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  /** How many guests QEMU's emulation has lost so far, over all machines. */
  async lostGuests(): Promise<number> {
    const machine = await this.#machine?.catch(() => undefined);
    return this.#lostBefore + (machine?.lostGuests ?? 0);
  }

  async close(): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    rmSync(this.#folder, { recursive: true, force: true });
    await this.#queue;
    await this.#closeMachine();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #switch(mode: MachineMode): Promise<Machine> {
    if (this.#mode !== mode) {
      await this.#closeMachine();
      const { progress, prepared } = this.#options;
      progress(`booting ${mode} (log: ${prepared.serialLog})`);
      this.#mode = mode;
      this.#machine = Machine.boot({ ...this.#options, mode });
      await this.#machine;
      progress(`booted ${mode}`);
    }
    return this.#machine!;
  }

  async #closeMachine(): Promise<void> {
    const machine = await this.#machine?.catch(() => undefined);
    this.#machine = undefined;
    this.#mode = undefined;
    this.#lostBefore += machine?.lostGuests ?? 0;
    await machine?.close();
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    // Whoever asked may be gone before its answer: that is no concern of the others.
    socket.on('error', () => socket.destroy());
    createInterface({ input: socket }).on('line', async (line) => {
      socket.end(`${JSON.stringify(await this.#answer(line))}\n`);
    });
  }

  async #answer(line: string): Promise<Lent> {
    const mode = MACHINE_MODES.find((known) => known === line);
    if (mode === undefined) return { error: `there is no mode ${line}` };
    return this.machine(mode).then(
      (machine) => whereabouts(machine, mode),
      (error) => ({ error: messageOf(error) }),
    );
  }
}
