// The program that the tests start as a machine that can be killed: a host with its socket.

import { listenForGuests } from '../../../src/hypervisor/process/listener.ts';
import { XenHost } from '../../../src/hypervisor/xen-host.ts';
import { systemRuntime } from '../../../src/runtime/runtime.ts';

const host = await XenHost.start({ runtime: systemRuntime() });
await listenForGuests({ host, path: process.argv[2]! });
process.stdout.write('ready\n');
