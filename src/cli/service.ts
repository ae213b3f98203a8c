// What `demo` and `serve` have in common: a daemon with its server, a line that says where, and an orderly
// end on SIGINT or SIGTERM. A second signal ends the process at once.

import { Daemon, type DaemonOptions } from '../daemon/daemon.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { Scope } from '../runtime/scope.ts';
import { ViewerServer } from '../server/server.ts';
import type { ServiceConfig } from './config.ts';

const EXIT_INTERRUPTED = 130;

export interface Service {
  readonly daemon: Daemon;
  /** Where a person opens the viewer, token included. */
  readonly url: string;
}

export interface ServiceParts
  extends Pick<DaemonOptions, 'domain' | 'hostPaths' | 'controls' | 'output'> {
  readonly runtime: Runtime;
  readonly config: ServiceConfig;
}

/** Starts the daemon and its server inside of `scope`. @throws SysError when either cannot start */
export async function startService(scope: Scope, parts: ServiceParts): Promise<Service> {
  const { runtime, config, ...host } = parts;
  const { budget, guestBudgets, refreshHz, token, limitedTokens, allowedHosts } = config;
  const budgets = { budget, guestBudgets };
  const daemon = scope.own(await Daemon.start({ ...host, ...budgets, runtime, refreshHz }));
  const access = { token, limitedTokens, allowedHosts };
  const server = scope.own(
    await ViewerServer.start(runtime, { ...config.listen, view: daemon, ...access }),
  );
  return { daemon, url: server.url };
}

/**
 * Says on stdout (JSON) or stderr (for people) that the service is ready. What is for people is often kept in a
 * log, and names the token only when nobody knows it yet.
 */
export function announce(
  { url }: Pick<Service, 'url'>,
  { json, tokenGiven }: ServiceConfig,
  advice: string,
): void {
  if (json) {
    process.stdout.write(`${JSON.stringify({ url, pid: process.pid })}\n`);
    return;
  }
  const address = tokenGiven ? `${new URL('/', url)}?token=... with its token` : url;
  process.stderr.write(`xen-zcopy: open ${address}\n${advice}\n`);
}

/** Resolves at the first SIGINT or SIGTERM; the second one ends the process at once. */
export function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => {
        process.once(signal, () => process.exit(EXIT_INTERRUPTED));
        resolve();
      });
    }
  });
}
