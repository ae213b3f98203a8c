// The domain that a command is: this one on a Xen host, or one of its own on a machine that runs in another
// process. And who the others are, by number or by name.

import { enterMachine } from '../../hypervisor/process/enter-machine.ts';
import { openLinuxDomain } from '../../linux/domain.ts';
import { linuxProgram } from '../../linux/program.ts';
import { SysError, UsageError } from '../../runtime/errors.ts';
import { type Runtime, sleep } from '../../runtime/runtime.ts';
import type { ProgramIdentity } from '../../share/exporter.ts';
import type { Domain } from '../../xen/domain.ts';
import { type DomId, domId } from '../../xen/ids.ts';
import { isErrno } from '../../xen/xenstore-access.ts';

export interface PlaceOptions {
  /** Socket of a machine. */
  readonly machine?: string;
  /** The name of the domain that the command becomes there. */
  readonly as?: string;
}

export interface Place extends AsyncDisposable {
  readonly domain: Domain;
  /** Which of the domain's programs we are; absent where a domain has one. */
  readonly program?: ProgramIdentity;
  /** The running domain of that name, or undefined. @throws SysError */
  find(name: string): Promise<DomId | undefined>;
  /** Resolves when there is a domain of that name. @throws SysError, the signal's reason */
  appears(name: string, signal: AbortSignal): Promise<DomId>;
  /** Resolves with the reason when the domain cannot go on. */
  readonly lost: Promise<Error>;
}

/** How often the names of a real host are looked at while one is waited for. */
const NAMES_INTERVAL_MS = 500;
const HOMES = '/local/domain';

/** @throws UsageError */
export function checkPlace({ machine, as }: PlaceOptions): void {
  if (machine !== undefined && as === undefined) {
    throw new UsageError('--machine needs --as NAME: the name of the domain to be there');
  }
  if (machine === undefined && as !== undefined) {
    throw new UsageError(
      '--as NAME is for a machine in another process: give its --machine SOCKET',
    );
  }
}

/** @throws SysError with what to do about it */
export function openPlace(runtime: Runtime, { machine, as }: PlaceOptions): Promise<Place> {
  if (machine === undefined || as === undefined) return onThisHost(runtime);
  return onMachine(runtime, { path: machine, name: as });
}

async function onMachine(
  runtime: Runtime,
  { path, name }: { path: string; name: string },
): Promise<Place> {
  const machine = await enterMachine({ runtime, path, name });
  const { stopped } = machine.domain;
  return {
    domain: machine.domain,
    find: (other) => orNobody(machine.resolve(other)),
    appears: (other, signal) => machine.resolve(other, { wait: true, signal }),
    lost: new Promise((resolve) => {
      const gone = new Error(`the machine at ${path} is gone, or has ended our domain ${name}`);
      stopped.addEventListener('abort', () => resolve(gone), { once: true });
    }),
    [Symbol.asyncDispose]: () => machine[Symbol.asyncDispose](),
  };
}

async function onThisHost(runtime: Runtime): Promise<Place> {
  const domain = await openLinuxDomain({ runtime });
  const find = (name: string) => findByHome(domain, name);
  return {
    domain,
    program: linuxProgram(),
    find,
    appears: async (name, signal) => {
      for (;;) {
        const found = await find(name);
        if (found !== undefined) return found;
        await sleep(runtime, NAMES_INTERVAL_MS, signal);
      }
    },
    lost: Promise.resolve(domain.store.closed).then(
      (error) => error ?? new Error('xenstored closed the connection'),
    ),
    [Symbol.asyncDispose]: () => domain[Symbol.asyncDispose](),
  };
}

/** Looks at the names that the toolstack has written. @throws SysError EACCES where only numbers will do */
async function findByHome({ store }: Domain, name: string): Promise<DomId | undefined> {
  try {
    for (const home of (await store.directory(HOMES)) ?? []) {
      if (!/^\d{1,5}$/.test(home)) continue;
      if ((await store.read(`${HOMES}/${home}/name`)) === name) return domId(Number(home));
    }
    return undefined;
  } catch (error) {
    if (!isErrno(error, 'EACCES')) throw error;
    const remedy = 'only domain 0 may list the others: give the domain by its number';
    const context = `looking for a domain named ${name}`;
    throw new SysError({ call: error.call, errnoName: error.errnoName, context, remedy });
  }
}

async function orNobody(found: Promise<DomId>): Promise<DomId | undefined> {
  try {
    return await found;
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return undefined;
    throw error;
  }
}
