// How the code of a guest begins, in its own thread: with its domain, its own clock and log, and word
// of a shutdown that is asked for (control/shutdown, as Linux's drivers/xen/manage.c answers it).

import { workerData } from 'node:worker_threads';
import { type Runtime, stderrLogger, systemRuntime } from '../../runtime/runtime.ts';
import { GuestDomain } from '../guest-domain.ts';
import type { ShutdownReason } from '../hosted-domain.ts';
import { connectToStore } from '../store-ring.ts';
import { homeOf } from '../toolstack.ts';
import type { StartInfo } from './messages.ts';
import { WorkerPort } from './worker-port.ts';

type OrderlyReason = Exclude<ShutdownReason, 'crash'>;

/** What a guest's code works with. */
export interface GuestContext {
  readonly name: string;
  readonly domain: GuestDomain;
  readonly runtime: Runtime;
  /** What whoever started the guest handed to it. */
  readonly arguments: unknown;
  /** Resolves when the toolstack asks for a shutdown; it is for the guest to finish and to `shutdown`. */
  readonly shutdownRequested: Promise<OrderlyReason>;
  /** Gives everything back and stops the domain; this thread ends with it. */
  shutdown(reason?: OrderlyReason): Promise<void>;
}

/** To be called once, first thing in a guest's module. @throws SysError when xenstored does not answer */
export async function enterGuest(): Promise<GuestContext> {
  const info = workerData as StartInfo;
  const log = stderrLogger(info.logLevel as Parameters<typeof stderrLogger>[0]);
  const runtime = systemRuntime(log.child({ guest: info.name }));
  const port = new WorkerPort(info);
  const domain = new GuestDomain({
    port,
    runtime,
    connectStore: (events) => connectToStore(port, { runtime, events }),
  });
  const requested = await watchShutdown(domain, runtime);
  return {
    name: info.name,
    domain,
    runtime,
    arguments: info.arguments,
    shutdownRequested: requested.shutdown,
    shutdown: async (reason = 'poweroff') => {
      await domain[Symbol.asyncDispose]();
      await port.call('shutdown', { reason });
    },
  };
}

/** Answers the toolstack's request by emptying the node, and passes it on. */
async function watchShutdown(
  { domid, store }: GuestDomain,
  { log }: Runtime,
): Promise<{ shutdown: Promise<OrderlyReason> }> {
  const path = `${homeOf(domid)}/control/shutdown`;
  let resolve: (reason: OrderlyReason) => void = () => {};
  const shutdown = new Promise<OrderlyReason>((resolver) => {
    resolve = resolver;
  });
  const look = async () => {
    const reason = await store.read(path);
    if (reason !== 'poweroff' && reason !== 'reboot') return;
    await store.write(path, '');
    resolve(reason);
  };
  await store.watch(path, () => {
    look().catch((error: unknown) => log.warn({ err: error }, 'cannot read the shutdown node'));
  });
  return { shutdown };
}
