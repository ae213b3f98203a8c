// One machine for many processes: who boots it says where it is in an environment variable, and the
// scenario files, each a process of its own, attach to it.

import { readFileSync } from 'node:fs';
import { type Runtime, systemRuntime } from '../src/runtime/runtime.ts';
import { stopDaemonIfRunning } from './daemon.ts';
import { Dom0 } from './dom0.ts';
import { listDomains } from './guest.ts';
import type { Machine } from './machine.ts';

const VARIABLE = 'XEN_ZCOPY_LAB';

interface Whereabouts {
  readonly agentPort: number;
  readonly daemonPort: number;
  readonly token: string;
  readonly serialLog: string;
}

/** A machine that another process booted. */
export interface AttachedMachine {
  readonly dom0: Dom0;
  readonly daemonPort: number;
  readonly runtime: Runtime;
  /** Ends the daemon and every guest that an earlier scenario left, so that the next one starts fresh. */
  reset(): Promise<void>;
}

async function reset(dom0: Dom0): Promise<void> {
  await stopDaemonIfRunning(dom0);
  for (const { domid } of await listDomains(dom0)) {
    if (domid !== 0) await dom0.run(['xl', 'destroy', `${domid}`]);
  }
}

/** The environment for processes that use `machine`. */
export function attachment(machine: Machine): NodeJS.ProcessEnv {
  const { agentPort, token } = machine.dom0;
  const { daemonPort, serialLog } = machine;
  const whereabouts: Whereabouts = { agentPort, daemonPort, token, serialLog };
  return { [VARIABLE]: JSON.stringify(whereabouts) };
}

/** Attaches to the machine that the environment names. @throws when it names none */
export function attach(): AttachedMachine {
  const value = process.env[VARIABLE];
  if (value === undefined) {
    throw new Error(`scenarios need a running lab (${VARIABLE}): use npm run test:xen`);
  }
  const { agentPort, daemonPort, token, serialLog } = JSON.parse(value) as Whereabouts;
  const runtime = systemRuntime();
  const lastWords = () => readFileSync(serialLog, 'latin1').split('\n').slice(-20).join('\n');
  const dom0 = new Dom0({ runtime, agentPort, token, lastWords });
  return { dom0, daemonPort, runtime, reset: () => reset(dom0) };
}
