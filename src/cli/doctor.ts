// `xen-zcopy doctor`: which ways of sharing this host gives, how that was found out, and what can be done
// where one is missing.

import { type HostReport, probeHost, requireServable } from '../linux/host.ts';
import type { HostPath } from '../linux/host-path.ts';

export interface DoctorOptions {
  readonly json?: boolean;
}

type Paths = HostReport['paths'];

/** Prints what was found. @throws SysError, with one line, when guests cannot be served here */
export async function doctor({ json }: DoctorOptions): Promise<void> {
  const report = await probeHost(process.env);
  process.stdout.write(json ? `${JSON.stringify(asJson(report))}\n` : render(report));
  requireServable(report);
}

function servable(report: HostReport): boolean {
  try {
    requireServable(report);
    return true;
  } catch {
    return false;
  }
}

function asJson(report: HostReport) {
  const { notXen, paths } = report;
  const summary = summaryOf(paths);
  return { xen: notXen === undefined, servable: servable(report), paths, summary };
}

/** The whole report, for people. */
export function render(report: HostReport): string {
  const entries: [string, HostPath][] = Object.entries(report.paths);
  const width = Math.max(...entries.map(([name]) => name.length));
  const lines = entries.flatMap(([name, path]) => describe(name.padEnd(width), path));
  const summary = servable(report) ? ['', ...summaryOf(report.paths)] : [];
  return `${[...lines, ...summary].join('\n')}\n`;
}

function describe(name: string, { available, reason, remedy }: HostPath): string[] {
  const first = `  ${name}  ${available ? 'yes' : 'no '}  ${reason}`;
  if (remedy === undefined) return [first];
  return [first, `  ${' '.repeat(name.length)}       -> ${remedy}`];
}

/** Which way buffers will take here, in sentences. */
export function summaryOf(paths: Paths): string[] {
  return [`Guests' buffers ${theirs(paths)}.`, `Buffers of ours ${ours(paths)}.`];
}

function theirs(paths: Paths): string {
  if (paths['export-refs'].available) {
    return 'become dma-bufs of this host where Xen lets them, and are mapped where it does not';
  }
  return 'are mapped, which shows the same pages; drivers of this host cannot use them in place';
}

function ours(paths: Paths): string {
  const source = [
    ...(paths.udmabuf.available ? ['memfds (udmabuf)'] : []),
    ...(paths['dma-heaps'].available ? ['dma-heaps'] : []),
    ...(paths.kms.available ? ['the displays of this host'] : []),
  ];
  if (!paths['lend-buffers'].available || source.length === 0) {
    return 'cannot be lent to guests (be-alloc=1): let guests allocate (be-alloc=0)';
  }
  const end = paths['observe-grants'].available
    ? 'the grant table shows when a guest has let go of them'
    : 'a guest that has not let go shows in what a memfd still has for users, and not elsewhere';
  return `can be lent to guests (be-alloc=1) from ${source.join(', ')}; ${end}`;
}
