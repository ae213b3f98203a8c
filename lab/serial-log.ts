// What Xen and dom0's kernel say: a file for each machine, which its QEMU writes and nobody else; never one file for two.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';

/** How much of it an error shows. */
const SHOWN_LINES = 25;

/** Makes the empty log of a machine of this mode, the next in a folder of logs. @returns its path */
export function newSerialLog(folder: string, mode: string): string {
  const boots = readdirSync(folder).filter((name) => name.startsWith('boot-')).length;
  const path = `${folder}/boot-${boots + 1}-${mode}.log`;
  writeFileSync(path, '', { flag: 'wx' });
  return path;
}

/** The log so far; nothing when somebody has removed it. */
export function serialText(path: string): string {
  if (!existsSync(path)) return '';
  return readFileSync(path, 'latin1').replaceAll('\r', '');
}

export function lastLines(path: string, count = SHOWN_LINES): string {
  return serialText(path).trimEnd().split('\n').slice(-count).join('\n');
}
