// The dom0 program gntdev-bare with the refs of a guest: dom0's gntdev itself, without our daemon or library.
import { CommandFailed, type Dom0 } from './dom0.ts';
import type { Guest } from './guest.ts';
import type { Program } from './program.ts';

const PROGRAM_TIMEOUT_MS = 60_000;
const RUN_TIMEOUT_MS = 300_000;

/** What the program prints; times are those of all rounds together. */
export interface GntdevCost {
  readonly refs: number;
  readonly rounds: number;
  /** Of the first words of all pages. */
  readonly sum: number;
  readonly wallMs: number;
  readonly userMs: number;
  readonly systemMs: number;
}

/** Pages that a guest has granted to dom0, until its program is stopped. Page N is full of the number N. */
export interface GrantedPages {
  readonly program: Program;
  readonly refs: readonly number[];
}

/** Has the guest grant pages of its own to dom0, by the guest program `grant`. */
export async function grantPages(guest: Guest, count: number): Promise<GrantedPages> {
  await guest.shell('modprobe xen-gntalloc');
  const program = await guest.start('grant', count);
  const [granted] = await program.waitForLines<{ refs: number[] }>(1, PROGRAM_TIMEOUT_MS);
  return { program, refs: granted!.refs };
}

/**
 * Maps the refs, or makes dma-bufs of them, as often as `rounds` says.
 * @returns the cost, or the call that failed and its error, as `EXP_FROM_REFS: EINVAL`
 */
export async function gntdevBare(
  dom0: Dom0,
  job: { what: 'map' | 'export'; domid: number; refs: readonly number[]; rounds: number },
): Promise<GntdevCost | string> {
  const { what, domid, refs, rounds } = job;
  const line = `echo ${refs.join(' ')} | gntdev-bare ${what} ${domid} ${rounds}`;
  const result = await dom0.run(['sh', '-c', line], RUN_TIMEOUT_MS);
  if (result.code === 0) return JSON.parse(result.stdout) as GntdevCost;
  if (result.code === 1) return result.stderr.trim();
  throw new CommandFailed('gntdev-bare', result);
}
