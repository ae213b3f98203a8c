// `xen-zcopy serve`: the driver domain's daemon on a real Xen host.

import { openLinuxDomain } from '../linux/domain.ts';
import { probeHost, requireServable } from '../linux/host.ts';
import { KmsOutput } from '../outputs/kms/kms-output.ts';
import type { ScreenOutput, ScreenOutputOptions } from '../outputs/screen-output.ts';
import { SystemRandom } from '../runtime/random.ts';
import { stderrLogger, systemRuntime } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import { type OutputChoice, type ServiceOptions, serviceConfig } from './config.ts';
import { endOnDefect } from './crash-only.ts';
import { announce, interrupted, startService } from './service.ts';

const ADVICE = `Give a guest a screen with vdispl and vkb in its xl configuration, then xl create.
Ctrl-C stops; the guests keep running and their screens come back with the next daemon.`;

/** Serves until it is interrupted. @throws UsageError, or SysError when this is not a Xen host */
export async function serve(options: ServiceOptions): Promise<void> {
  const config = serviceConfig(options, { random: new SystemRandom(), logLevel: 'info' });
  const host = await probeHost(process.env);
  requireServable(host);
  const runtime = systemRuntime(stderrLogger(config.logLevel));
  endOnDefect(runtime.log);
  const scope = new Scope('serve');
  try {
    const domain = scope.own(await openLinuxDomain({ runtime }));
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
    if (lost) throw lost;
  } finally {
    await scope.close();
  }
}

/** What makes the output, or undefined for the viewer alone. */
function outputFor(
  choice: OutputChoice,
): ((options: ScreenOutputOptions) => ScreenOutput) | undefined {
  if (choice.kind === 'browser') return undefined;
  const { path, connectors } = choice;
  return (options) => KmsOutput.open(path, { ...options, connectors });
}
