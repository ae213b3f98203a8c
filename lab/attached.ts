// One machine for many processes: who boots it says where it is in an environment variable, and the
// scenario files, each a process of its own, attach to it.

import { readFileSync } from 'node:fs';
import { type Runtime, systemRuntime } from '../src/runtime/runtime.ts';
import { Dom0 } from './dom0.ts';
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
  return { dom0: new Dom0({ runtime, agentPort, token, lastWords }), daemonPort, runtime };
}
