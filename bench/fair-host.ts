// The machine of the benchmark of fair service: hypervisor and daemon as in `demo --machine`, in one thread of one
// process, and a socket for guests in other processes. Told over IPC to give displays to a guest; it answers with
// its status.

import { Daemon } from '../src/daemon/daemon.ts';
import { listenForGuests, XenHost } from '../src/hypervisor/index.ts';
import { systemRuntime } from '../src/runtime/runtime.ts';
import { DOM0, type DomId, domId } from '../src/xen/ids.ts';
import { addDevice } from '../src/xen/xenbus/toolstack.ts';
import { DEFAULT_BUDGET } from '../src/zcopy/budget.ts';

/** Flips complete as soon as the daemon can, so that the pace of a screen does not hide the daemon's own. */
const REFRESH_HZ = 1000;

/** A display for a guest; without connectors, only the status is asked for. */
export interface HostOrder {
  readonly domid?: number;
  readonly connectors?: number;
}

const runtime = systemRuntime();
const host = await XenHost.start({ runtime });
const budget = DEFAULT_BUDGET;
const daemon = await Daemon.start({
  runtime,
  domain: host.dom0,
  budget,
  refreshHz: REFRESH_HZ,
  hostPaths: {},
});
await listenForGuests({ host, path: process.argv[2]! });

process.on('message', async ({ domid, connectors = 0 }: HostOrder) => {
  if (connectors > 0) await giveDisplay(domId(domid!), connectors);
  process.send!(daemon.status());
});
process.on('disconnect', () => process.exit());
process.send!('ready');

function giveDisplay(domid: DomId, connectors: number): Promise<void> {
  const types = { backendType: 'vdispl', frontendType: 'vdispl' };
  const device = { ...types, backendDomid: DOM0, domid, devid: 0 };
  const readOnlyFrontend = Object.fromEntries(
    Array.from({ length: connectors }, (_, index) => [`${index}/resolution`, '3840x2160']),
  );
  return addDevice(host.dom0.store, device, { readOnlyFrontend });
}
