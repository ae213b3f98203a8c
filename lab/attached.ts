// The machine as scenario files see it, each a process of its own: they ask the supervisor, whose socket an
// environment variable names, for a machine of the mode that their folder is called by.
import { basename } from 'node:path';
import { type Runtime, systemRuntime } from '../src/runtime/runtime.ts';
import { Dom0 } from './dom0.ts';
import { REMOVE_GUEST_LOGS } from './evidence.ts';
import { listDomains } from './guest.ts';
import { livedRuntime } from './lived-time.ts';
import { END_ALL_PROGRAMS } from './program.ts';
import { lastLines } from './serial-log.ts';
import { borrowMachine, type MachineQuestion } from './supervisor-protocol.ts';

/** A machine that another process booted. */
export interface AttachedMachine {
  readonly dom0: Dom0;
  readonly daemonPort: number;
  readonly runtime: Runtime;
  /** Ends the processes, the programs and every guest that an earlier scenario left, so that the next one starts fresh. */
  reset(): Promise<void>;
}

async function reset(dom0: Dom0): Promise<void> {
  await dom0.killAll();
  await dom0.shell(END_ALL_PROGRAMS);
  for (const { domid } of await listDomains(dom0)) {
    if (domid !== 0) await dom0.run(['xl', 'destroy', `${domid}`]);
  }
  await dom0.shell(REMOVE_GUEST_LOGS);
}

/** Attaches to the machine of a mode, which may have to boot first. @throws when nobody offers one, or it does not boot */
export async function attachTo(question: MachineQuestion): Promise<AttachedMachine> {
  const { agentPort, daemonPort, token, serialLog } = await borrowMachine(question);
  const runtime = livedRuntime(systemRuntime());
  const dom0 = new Dom0({ runtime, agentPort, token, lastWords: () => lastLines(serialLog) });
  return { dom0, daemonPort, runtime, reset: () => reset(dom0) };
}

/** How the path of a scenario's file, written or compiled, is told from others: `pv-dom0/display`. */
export function scenarioName(path: string): string {
  const [file, mode] = path.split('/').reverse();
  return `${mode}/${file!.replace(/\.test\.[jt]s$/, '')}`;
}

/** Attaches a scenario, which gives its `import.meta`, to the machine that its folder names. */
export function attach(scenario: ImportMeta): Promise<AttachedMachine> {
  return attachTo({ mode: basename(scenario.dirname), scenario: scenarioName(scenario.filename) });
}
