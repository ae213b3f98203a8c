// `xen-zcopy serve`: the driver domain's daemon on a real Xen host.

import type { DaemonStatus } from '../daemon/status.ts';
import { GNTDEV } from '../linux/device.ts';
import { openLinuxDomain } from '../linux/domain.ts';
import { probeHost, requireServable } from '../linux/host.ts';
import { KmsOutput } from '../outputs/kms/kms-output.ts';
import type { ScreenOutput, ScreenOutputOptions } from '../outputs/screen-output.ts';
import { messageOf, SysError } from '../runtime/errors.ts';
import { SystemRandom } from '../runtime/random.ts';
import { type Runtime, stderrLogger, systemRuntime } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import type { Domain } from '../xen/domain.ts';
import type { XenstoreClient } from '../xen/xenstore-client.ts';
import { type OutputChoice, type ServiceOptions, serviceConfig } from './config.ts';
import { endOnDefect } from './crash-only.ts';
import { announce, interrupted, startService } from './service.ts';
import { becomeSoleDaemon } from './sole-daemon.ts';

const ADVICE = `Give a guest a screen with vdispl and vkb in its xl configuration, then xl create.
Ctrl-C stops; the guests keep running and their screens come back with the next daemon.`;

/** Serves until it is interrupted. @throws UsageError, or SysError when this is not a Xen host */
export async function serve(options: ServiceOptions): Promise<void> {
  await serveOn(options, async () => {
    const host = await probeHost(process.env);
    requireServable(host);
    const { paths } = host;
    return { paths, lock: GNTDEV.path, open: (runtime) => openLinuxDomain({ runtime }) };
  });
}

/** A host whose driver domain this process serves from. */
export interface DriverHost {
  readonly paths: DaemonStatus['host']['paths'];
  /** The file that stands for the domain, of which there is one daemon. */
  readonly lock: string;
  /** Our domain, with word of when xenstored is lost. */
  open(runtime: Runtime): Promise<Domain & { readonly store: Pick<XenstoreClient, 'closed'> }>;
}

/** The same on a host that `find` finds. @throws UsageError, or what `find` and the host throw */
export async function serveOn(
  options: ServiceOptions,
  find: () => Promise<DriverHost>,
): Promise<void> {
  const config = serviceConfig(options, { random: new SystemRandom(), logLevel: 'info' });
  const host = await find();
  const runtime = systemRuntime(stderrLogger(config.logLevel));
  endOnDefect(runtime.log);
  const scope = new Scope('serve');
  try {
    scope.own(becomeSoleDaemon(host.lock));
    const domain = scope.own(await host.open(runtime));
    const output = outputFor(config.output);
    const service = await startService(scope, {
      runtime,
      config,
      domain,
      hostPaths: host.paths,
      ...(output === undefined ? {} : { output }),
    });
    announce(service, config, ADVICE);
    const lost = await Promise.race([interrupted(), domain.store.closed]);
    if (lost) throw xenstoredLost(lost);
  } finally {
    await scope.close();
  }
}

/** What the connection ended with is our SysError, or Node's. */
function xenstoredLost(reason: Error): SysError {
  const { code = messageOf(reason) }: NodeJS.ErrnoException = reason;
  const { call, errnoName } =
    reason instanceof SysError ? reason : { call: 'read', errnoName: code };
  return new SysError({
    call,
    errnoName,
    context: 'the connection to xenstored is lost, without which no guest can be served',
    remedy: 'once xenstored is there again, start xen-zcopy again',
  });
}

/** What makes the output, or undefined for the viewer alone. */
function outputFor(
  choice: OutputChoice,
): ((options: ScreenOutputOptions) => ScreenOutput) | undefined {
  if (choice.kind === 'browser') return undefined;
  const { path, connectors } = choice;
  return (options) => KmsOutput.open(path, { ...options, connectors });
}
