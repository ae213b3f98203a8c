// `xen-zcopy demo`: Xen in this process, guests that draw and listen, and the viewer. What `npm start` runs.

import { listenForGuests } from '../hypervisor/process/listener.ts';
import { listenOnUnixSocket } from '../hypervisor/xenstored/unix-listener.ts';
import { SystemRandom } from '../runtime/random.ts';
import { stderrLogger, systemRuntime } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import { type ServiceOptions, serviceConfig, wholeNumber } from './config.ts';
import { endOnDefect } from './crash-only.ts';
import { DemoMachine } from './demo/machine.ts';
import { announce, interrupted, startService } from './service.ts';

export interface DemoOptions extends ServiceOptions {
  readonly guests: string;
  readonly xenstoreSocket?: string;
  readonly machine?: string;
}

const MAX_GUESTS = 8;

const ADVICE = `Click a screen to type and draw on it; stop, crash and restart its guest beside it.
Ctrl-C ends the machine.`;

/** Runs until it is interrupted. @throws UsageError, or SysError when the machine cannot start */
export async function demo(options: DemoOptions): Promise<void> {
  const config = serviceConfig(options, { random: new SystemRandom(), logLevel: 'warn' });
  const guests = wholeNumber(options.guests, { option: '--guests', min: 1, max: MAX_GUESTS });
  const runtime = systemRuntime(stderrLogger(config.logLevel));
  endOnDefect(runtime.log);
  const scope = new Scope('demo');
  try {
    const machine = scope.own(await DemoMachine.start(runtime, { guests }));
    const { dom0: domain, xenstored } = machine.host;
    if (options.xenstoreSocket !== undefined) {
      scope.own(await listenOnUnixSocket({ server: xenstored, path: options.xenstoreSocket }));
    }
    const hostPaths = {
      'map-grants': { available: true, reason: 'the hypervisor in this process' },
    };
    const service = await startService(scope, {
      runtime,
      config,
      domain,
      hostPaths,
      controls: machine,
    });
    await machine.boot();
    // Behind the guests: a process must not take one's name before it has started.
    const door = options.machine;
    if (door !== undefined) scope.own(await listenForGuests({ host: machine.host, path: door }));
    const doorAdvice = door === undefined ? '' : `\nProcesses enter the machine by ${door}.`;
    announce(service, config, `${ADVICE}${doorAdvice}`);
    await interrupted();
  } finally {
    await scope.close();
  }
}
