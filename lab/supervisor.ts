// One lab for many processes: it boots a machine of a mode when somebody first asks for that mode, and
// lends it out over a Unix socket (supervisor-protocol.ts). Only one machine runs at a time, so ask for one mode after
// the other. It knows which scenario ran when, and keeps what explains a failure beside the machines' logs.
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { messageOf } from '../src/runtime/errors.ts';
import { gatherEvidence } from './evidence.ts';
import type { LostGuest } from './lost-guests.ts';
import { MACHINE_MODES, Machine, type MachineMode, type MachineOptions } from './machine.ts';
import { ScenarioRuns } from './scenario-runs.ts';
import {
  type Evidence,
  type MachineQuestion,
  type Question,
  SUPERVISOR_VARIABLE,
  type Whereabouts,
} from './supervisor-protocol.ts';

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
  readonly #runs = new ScenarioRuns();
  #mode: MachineMode | undefined;
  #failures = 0;
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
   * The machine of this mode, a new one when the last has ended by itself; the one before, of another mode, is closed.
   * @throws what the boot threw, which is not tried a second time
   */
  machine(mode: MachineMode): Promise<Machine> {
    const turn = this.#queue.then(() => this.#switch(mode));
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  /** The guests that QEMU has lost in the latest run of a scenario, whichever machine that had. */
  lostGuests(scenario: string): LostGuest[] {
    return this.#runs.lostGuests(scenario);
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
    if (this.#mode !== mode || !(await this.#machine)?.running) {
      await this.#closeMachine();
      const { progress, prepared } = this.#options;
      progress(`booting ${mode} (its log is the latest in ${prepared.logs})`);
      this.#mode = mode;
      this.#machine = Machine.boot({ ...this.#options, mode });
      const { serialLog } = await this.#machine;
      progress(`booted ${mode} (${serialLog})`);
    }
    return this.#machine!;
  }

  async #closeMachine(): Promise<void> {
    const machine = await this.#machine?.catch(() => undefined);
    this.#machine = undefined;
    this.#mode = undefined;
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

  async #answer(line: string): Promise<object> {
    try {
      const question = JSON.parse(line) as Question;
      return await ('failed' in question ? this.#keep(question.failed) : this.#lend(question));
    } catch (error) {
      return { error: messageOf(error) };
    }
  }

  async #lend({ mode: asked, scenario }: MachineQuestion): Promise<Whereabouts> {
    const mode = MACHINE_MODES.find((known) => known === asked);
    if (mode === undefined) throw new Error(`there is no mode ${asked}`);
    const machine = await this.machine(mode);
    if (scenario !== undefined) this.#runs.begin(scenario, machine.serialLog);
    return whereabouts(machine, mode);
  }

  /** Whoever reports a failure runs in the machine of now: the next one boots when the next scenario asks. */
  async #keep(scenario: string): Promise<Evidence> {
    const machine = await this.#machine;
    if (machine === undefined) throw new Error('no machine has run yet');
    const { prepared, progress } = this.#options;
    this.#failures += 1;
    const name = scenario.replaceAll('/', '-');
    const path = `${prepared.logs}/failure-${this.#failures}-${name}.log`;
    this.#runs.noteLost(scenario, await gatherEvidence(machine, path));
    progress(
      `${scenario} failed: ${path} has the ends of all logs, ${machine.serialLog} all of Xen's`,
    );
    return { path };
  }
}
