// What this host gives: whether it runs on Xen, and which of the ways that a domain needs can be used, each
// with the reason and the remedy where it cannot. Every way is tried for real, and leaves nothing behind.

import { SysError } from '../runtime/errors.ts';
import { bufferProbes } from './buffer-paths.ts';
import {
  EVTCHN,
  GNTDEV,
  type OpenDevice,
  openXenDevice,
  WITHOUT_XEN,
  type XenDevice,
} from './device.ts';
import { type HostPath, type HostProbe, inOneLine, lookAt } from './host-path.ts';
import { textOf } from './kernel-facts.ts';
import { KMS_PROBE } from './kms-path.ts';
import { lookAtSharing } from './share-path.ts';
import { openXenstoreChannel } from './xenstore.ts';

const HYPERVISOR_TYPE = '/sys/hypervisor/type';

/** Every look at a host, in the order in which people read them. A new way is one more line. */
function hostProbes(env: NodeJS.ProcessEnv, open: OpenDevice) {
  const opened = (device: XenDevice) => () => {
    open(device)[Symbol.dispose]();
    return 'opened';
  };
  return [
    { name: 'event-channels', look: opened(EVTCHN) },
    { name: 'map-grants', look: opened(GNTDEV) },
    { name: 'share-pages', look: () => lookAtSharing(open) },
    { name: 'xenstore', look: () => lookAtXenstore(env) },
    ...bufferProbes(open),
    KMS_PROBE,
  ] as const satisfies readonly HostProbe[];
}

export type HostPathName = ReturnType<typeof hostProbes>[number]['name'];

/** The ways without which no guest can be served; all others are for speed, for lending, or for frontends. */
const NEEDED_TO_SERVE: readonly HostPathName[] = ['event-channels', 'map-grants', 'xenstore'];

export interface HostReport {
  /** Why this is no Xen host; absent when it is one. */
  readonly notXen?: SysError;
  readonly paths: Readonly<Record<HostPathName, HostPath>>;
}

/** Finds out what this host gives, one way after the other. */
export async function probeHost(
  env: NodeJS.ProcessEnv,
  open: OpenDevice = openXenDevice,
): Promise<HostReport> {
  const notXen = hypervisorError();
  const found: [string, HostPath][] = [];
  for (const probe of hostProbes(env, open)) found.push([probe.name, await lookAt(probe)]);
  const paths = Object.fromEntries(found) as Record<HostPathName, HostPath>;
  return { ...(notXen === undefined ? {} : { notXen }), paths };
}

/** @throws SysError, with one clear line, when guests cannot be served on the host */
export function requireServable({ notXen, paths }: HostReport): void {
  if (notXen !== undefined) throw notXen;
  const missing = NEEDED_TO_SERVE.map((name) => paths[name]).filter((path) => !path.available);
  if (missing.length === 0) return;
  const context = missing.map(inOneLine).join('; ');
  throw new SysError({ call: 'probing the host', errnoName: 'ENODEV', context });
}

function hypervisorError(): SysError | undefined {
  const type = textOf(HYPERVISOR_TYPE);
  if (type === 'xen') return undefined;
  return new SysError({
    call: `reading ${HYPERVISOR_TYPE}`,
    errnoName: type === undefined ? 'ENOENT' : `"${type}"`,
    context: 'this computer does not run on Xen',
    remedy: WITHOUT_XEN,
  });
}

async function lookAtXenstore(env: NodeJS.ProcessEnv): Promise<string> {
  const channel = await openXenstoreChannel(env);
  channel.close();
  return 'opened';
}
