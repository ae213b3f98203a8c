// Which program of this domain we are, in a way that survives us: the process's number and when it started, by
// the kernel's own clock (proc(5), /proc/PID/stat, field 22). Processes in other pid namespaces seem dead.

import { readFileSync } from 'node:fs';

const START_TIME_FIELD = 22;

/** As `ProgramIdentity` of share/. */
export function linuxProgram(): { readonly own: string; isAlive(name: string): boolean } {
  return { own: `${process.pid}.${startTimeOf(process.pid)}`, isAlive };
}

function isAlive(name: string): boolean {
  const match = /^(\d{1,10})\.(\d{1,20})$/.exec(name);
  return match !== null && startTimeOf(Number(match[1])) === match[2];
}

/** In ticks since the boot; undefined when there is no such process. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is a name in parentheses, which may have spaces and parentheses of its own.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[START_TIME_FIELD - 3];
  } catch {
    return undefined;
  }
}
