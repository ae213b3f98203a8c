// What the processes of a run ask its supervisor, over the Unix socket that an environment variable names: one question
// and one answer a connection, a line of JSON each.
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import type { MachineMode } from './machine.ts';

/** Names the supervisor's socket to the processes that ask it. */
export const SUPERVISOR_VARIABLE = 'XEN_ZCOPY_LAB';

/** Where is the machine of this mode? The scenario, if one asks, begins with it. */
export interface MachineQuestion {
  readonly mode: string;
  readonly scenario?: string;
}

/** What a process needs to use the machine. */
export interface Whereabouts {
  readonly mode: MachineMode;
  readonly agentPort: number;
  readonly daemonPort: number;
  readonly token: string;
  readonly serialLog: string;
}

/** A test of this scenario has failed: keep what explains it. */
export interface FailureReport {
  readonly failed: string;
}

/** Where that is kept. */
export interface Evidence {
  readonly path: string;
}

export type Question = MachineQuestion | FailureReport;

async function ask<T>(question: Question): Promise<T> {
  const path = process.env[SUPERVISOR_VARIABLE];
  if (path === undefined) {
    throw new Error(`scenarios need a running lab (${SUPERVISOR_VARIABLE}): use npm run test:xen`);
  }
  const socket = connect(path);
  socket.end(`${JSON.stringify(question)}\n`);
  const answer = JSON.parse(await text(socket)) as T | { readonly error: string };
  if (typeof answer === 'object' && answer !== null && 'error' in answer) {
    throw new Error(`the lab says: ${answer.error}`);
  }
  return answer as T;
}

/** Asks for the machine, which may have to boot first. @throws when there is none, with the reason */
export function borrowMachine(question: MachineQuestion): Promise<Whereabouts> {
  return ask<Whereabouts>(question);
}

/** Has what explains a scenario's failure kept. @throws when that cannot be */
export function reportFailure(failed: string): Promise<Evidence> {
  return ask<Evidence>({ failed });
}
