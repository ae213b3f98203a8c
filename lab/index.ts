// The lab as a whole: a prepared machine with the daemon in its dom0 and guests on their screens. What
// `xen-zcopy lab` calls; the scenarios use the parts by themselves.

import { systemRuntime } from '../src/runtime/runtime.ts';
import { Scope } from '../src/runtime/scope.ts';
import { Daemon } from './daemon.ts';
import { Guest } from './guest.ts';
import { livedRuntime } from './lived-time.ts';
import { Machine } from './machine.ts';
import type { Progress } from './packages.ts';
import { defaultCacheFolder, prepare } from './prepare.ts';

export { HOST_PACKAGES } from './recipe.ts';

export interface LabOptions {
  /** Gets a line for everything that takes more than a moment. */
  readonly progress: Progress;
  /** The port of the viewer on this machine's loopback; a free one when left out or 0. */
  readonly listenPort?: number;
  /** How many guests, each with a screen, a keyboard and a pointer. */
  readonly guests?: number;
  readonly cacheFolder?: string;
  /** Stops the preparing and the booting; a running lab is stopped by close(). */
  readonly signal?: AbortSignal;
}

export interface RunningLab {
  /** The viewer's address, token included. */
  readonly url: string;
  readonly serialLog: string;
  close(): Promise<void>;
}

const SCREEN = { width: 1024, height: 768 };

async function addGuest(daemon: Daemon, number: number): Promise<void> {
  const guest = await Guest.create(daemon.dom0, {
    name: `guest${number}`,
    connectors: [{ id: `guest${number}-screen`, ...SCREEN }],
    keyboard: { absolute: SCREEN },
    terminal: true,
  });
  await guest.booted();
}

/** Prepares, boots, starts the daemon in dom0 and creates the guests; resolves when they are up. */
export async function runLab(options: LabOptions): Promise<RunningLab> {
  const { progress, guests = 1, cacheFolder = defaultCacheFolder(), signal } = options;
  const scope = new Scope('lab');
  try {
    const prepared = await prepare({ progress, cacheFolder });
    signal?.throwIfAborted();
    progress(`booting Xen under QEMU, half a minute or so (its log is in ${prepared.logs})`);
    const machine = await Machine.boot({
      prepared,
      runtime: livedRuntime(systemRuntime()),
      mode: 'pv-dom0',
      ...(options.listenPort ? { daemonPort: options.listenPort } : {}),
      ...(signal ? { signal } : {}),
    });
    scope.own(machine);
    progress('starting the daemon in dom0');
    const daemon = await Daemon.start(machine);
    for (let number = 1; number <= guests; number++) {
      signal?.throwIfAborted();
      progress(`starting guest ${number} of ${guests}`);
      await addGuest(daemon, number);
    }
    return { url: daemon.url, serialLog: machine.serialLog, close: () => scope.close() };
  } catch (error) {
    await scope.close();
    throw error;
  }
}
