// What this host gives: whether it runs on Xen, and which of the ways that a domain needs can be used,
// each with the reason and the remedy where it cannot. Every way is tried by really opening it.

import { readFileSync } from 'node:fs';
import { SysError } from '../runtime/errors.ts';
import { EVTCHN, GNTALLOC, GNTDEV, openXenDevice, WITHOUT_XEN, type XenDevice } from './device.ts';
import { openXenstoreChannel } from './xenstore.ts';

const HYPERVISOR_TYPE = '/sys/hypervisor/type';

/** One way that a host may give. */
export interface HostPath {
  readonly available: boolean;
  /** `opened`, or why it cannot be used and what to do about it. */
  readonly reason: string;
}

export const HOST_PATHS = ['event-channels', 'map-grants', 'share-pages', 'xenstore'] as const;
export type HostPathName = (typeof HOST_PATHS)[number];

/** The ways without which no guest can be served; sharing pages of ours is for frontends. */
const NEEDED_TO_SERVE: readonly HostPathName[] = ['event-channels', 'map-grants', 'xenstore'];

export interface HostReport {
  /** Why this is no Xen host; absent when it is one. */
  readonly notXen?: SysError;
  readonly paths: Readonly<Record<HostPathName, HostPath>>;
}

/** Finds out what this host gives; opens everything and closes it again. */
export async function probeHost(env: NodeJS.ProcessEnv): Promise<HostReport> {
  const notXen = hypervisorError();
  return {
    ...(notXen === undefined ? {} : { notXen }),
    paths: {
      'event-channels': await probe(() => tryDevice(EVTCHN)),
      'map-grants': await probe(() => tryDevice(GNTDEV)),
      'share-pages': await probe(() => tryDevice(GNTALLOC)),
      xenstore: await probe(async () => (await openXenstoreChannel(env)).close()),
    },
  };
}

/** @throws SysError, with one clear line, when guests cannot be served on the host */
export function requireServable({ notXen, paths }: HostReport): void {
  if (notXen !== undefined) throw notXen;
  const missing = NEEDED_TO_SERVE.map((name) => paths[name]).filter((path) => !path.available);
  if (missing.length === 0) return;
  const context = missing.map(({ reason }) => reason).join('; ');
  throw new SysError({ call: 'probing the host', errnoName: 'ENODEV', context });
}

function hypervisorError(): SysError | undefined {
  const context = 'this computer does not run on Xen';
  const call = `reading ${HYPERVISOR_TYPE}`;
  try {
    const type = readFileSync(HYPERVISOR_TYPE, 'utf8').trim();
    if (type === 'xen') return undefined;
    return new SysError({ call, errnoName: `"${type}"`, context, remedy: WITHOUT_XEN });
  } catch (error) {
    const errnoName = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
    return new SysError({ call, errnoName, context, remedy: WITHOUT_XEN });
  }
}

function tryDevice(device: XenDevice): void {
  openXenDevice(device)[Symbol.dispose]();
}

async function probe(open: () => void | Promise<void>): Promise<HostPath> {
  try {
    await open();
    return { available: true, reason: 'opened' };
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return { available: false, reason: error.message };
  }
}
