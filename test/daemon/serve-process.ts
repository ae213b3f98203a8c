// The program that the tests start as the daemon and kill: `xen-zcopy serve` from its arguments to its exit code, on
// a domain 0 whose kernel and xenstored are in the test's process.

import { join } from 'node:path';
import { exitCodeOf } from '../../src/cli/exit-code.ts';
import { serveOn } from '../../src/cli/serve.ts';
import { openDom0 } from './dom0-program.ts';

const [folder, listen] = process.argv.slice(2) as [string, string];
const sockets = { kernel: join(folder, 'kernel'), xenstored: join(folder, 'xenstored') };
const options = { listen, json: true, logLevel: 'info' } as const;
const paths = { 'map-grants': { available: true, reason: 'by the kernel of the test' } };
process.exitCode = await exitCodeOf(() =>
  serveOn(options, async () => ({
    paths,
    lock: join(folder, 'lock'),
    open: (runtime) => openDom0(runtime, sockets),
  })),
);
