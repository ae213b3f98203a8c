// `xen-zcopy lab`: a real Xen host under QEMU with a guest on its screen, until it is interrupted.

import type { RunningLab } from '../../lab/index.ts';
import { wholeNumber } from './config.ts';
import { interrupted } from './service.ts';

export interface LabCommandOptions {
  readonly port: string;
  readonly guests: string;
  readonly cache?: string;
  readonly json?: boolean;
}

const MAX_GUESTS = 4;
const MAX_PORT = 65_535;

/** @throws UsageError; SysError when the host cannot be prepared or booted */
export async function lab({ port, guests, cache, json }: LabCommandOptions): Promise<void> {
  const listenPort = wholeNumber(port, { option: '--port', min: 0, max: MAX_PORT });
  const guestCount = wholeNumber(guests, { option: '--guests', min: 1, max: MAX_GUESTS });
  const { runLab } = await import('../../lab/index.ts');
  const abort = new AbortController();
  const interrupt = interrupted().then(() => abort.abort(new Error('interrupted')));
  let running: RunningLab | undefined;
  try {
    running = await runLab({
      progress: (line) => process.stderr.write(`xen-zcopy: ${line}\n`),
      listenPort,
      guests: guestCount,
      ...(cache === undefined ? {} : { cacheFolder: cache }),
      signal: abort.signal,
    });
    const { url } = running;
    if (json) process.stdout.write(`${JSON.stringify({ url, pid: process.pid })}\n`);
    else process.stderr.write(`xen-zcopy: open ${url}\nCtrl-C ends the lab.\n`);
    await interrupt;
  } finally {
    await running?.close();
  }
}
