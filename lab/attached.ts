// The machine as scenario files see it, each a process of its own: they ask the supervisor, whose socket an
// environment variable names, for a machine of the mode that their folder is called by.
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { basename } from 'node:path';
import { text } from 'node:stream/consumers';
import { type Runtime, systemRuntime } from '../src/runtime/runtime.ts';
import { stopDaemonIfRunning } from './daemon.ts';
import { Dom0 } from './dom0.ts';
import { listDomains } from './guest.ts';
import { END_ALL_PROGRAMS } from './program.ts';
import { type Lent, SUPERVISOR_VARIABLE, type Whereabouts } from './supervisor.ts';

/** A machine that another process booted. */
export interface AttachedMachine {
  readonly dom0: Dom0;
  readonly daemonPort: number;
  readonly runtime: Runtime;
  /** Ends the daemon, the programs and every guest that an earlier scenario left, so that the next one starts fresh. */
  reset(): Promise<void>;
}

async function reset(dom0: Dom0): Promise<void> {
  await stopDaemonIfRunning(dom0);
  await dom0.shell(END_ALL_PROGRAMS);
  for (const { domid } of await listDomains(dom0)) {
    if (domid !== 0) await dom0.run(['xl', 'destroy', `${domid}`]);
  }
}

/** Asks for the machine; it may have to boot first. */
async function borrow(mode: string): Promise<Whereabouts> {
  const path = process.env[SUPERVISOR_VARIABLE];
  if (path === undefined) {
    throw new Error(`scenarios need a running lab (${SUPERVISOR_VARIABLE}): use npm run test:xen`);
  }
  const socket = connect(path);
  socket.end(`${mode}\n`);
  const lent = JSON.parse(await text(socket)) as Lent;
  if ('error' in lent) throw new Error(`the lab has no machine ${mode}: ${lent.error}`);
  return lent;
}

/** Attaches to the machine of a mode. @throws when nobody offers one, or it does not boot */
export async function attachTo(mode: string): Promise<AttachedMachine> {
  const { agentPort, daemonPort, token, serialLog } = await borrow(mode);
  const runtime = systemRuntime();
  const lastWords = () => readFileSync(serialLog, 'latin1').split('\n').slice(-20).join('\n');
  const dom0 = new Dom0({ runtime, agentPort, token, lastWords });
  return { dom0, daemonPort, runtime, reset: () => reset(dom0) };
}

/** Attaches a scenario, which gives its `import.meta`, to the machine that its folder names. */
export function attach(scenario: ImportMeta): Promise<AttachedMachine> {
  return attachTo(basename(scenario.dirname));
}
