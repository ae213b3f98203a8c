// What a toolstack (libxl) writes into xenstore to give a PV device to a guest and to take it away again;
// for hosts where this process is the toolstack: the demo, the simulation, the tests.

import {
  XenbusStateClosed,
  XenbusStateClosing,
  XenbusStateInitialising,
} from '../../abi/xenbus.ts';
import { type Runtime, withTimeout } from '../../runtime/runtime.ts';
import type { DomId } from '../ids.ts';
import { distrust } from '../untrusted.ts';
import type { Xenstore, XenstoreAccess } from '../xenstore.ts';
import { parseState } from './states.ts';

/** How long a device that is taken away may take to close, in milliseconds; libxl's LIBXL_DESTROY_TIMEOUT. */
const REMOVE_PATIENCE_MS = 10_000;

/** Nodes by key relative to a device's directory. */
export type DeviceNodeValues = Readonly<Record<string, string>>;

export interface PvDevice {
  readonly backendDomid: DomId;
  /** Directory name below `backend/`; libxl's differs from the frontend's for Linux keyboards: `vinput`. */
  readonly backendType: string;
  readonly domid: DomId;
  /** Directory name below `device/`, as `vkbd`. */
  readonly frontendType: string;
  readonly devid: number;
}

/** Absolute paths of a device's two directories. */
export function devicePaths(device: PvDevice): { backend: string; frontend: string } {
  const { backendDomid, backendType, domid, frontendType, devid } = device;
  return {
    backend: `/local/domain/${backendDomid}/backend/${backendType}/${domid}/${devid}`,
    frontend: `/local/domain/${domid}/device/${frontendType}/${devid}`,
  };
}

interface Directory {
  readonly path: string;
  readonly owner: DomId;
  readonly reader: DomId;
  readonly nodes: DeviceNodeValues;
}

async function makeDirectory(access: XenstoreAccess, directory: Directory): Promise<void> {
  const { path, owner, reader, nodes } = directory;
  await access.remove(path);
  await access.mkdir(path);
  // Nodes made below inherit this, also those that the owner adds later.
  await access.setPermissions(path, [
    { domid: owner, read: false, write: false },
    { domid: reader, read: true, write: false },
  ]);
  for (const [key, value] of Object.entries(nodes)) await access.write(`${path}/${key}`, value);
}

/** What a device's directories hold besides what every device has. */
export interface DeviceExtra {
  readonly backend?: DeviceNodeValues;
  readonly frontend?: DeviceNodeValues;
  /** In the frontend's directory, but not for the guest to change (libxl's ro_front). */
  readonly readOnlyFrontend?: DeviceNodeValues;
}

/** Gives the device to the guest: both directories in one transaction, both ends Initialising. */
export function addDevice(
  store: Xenstore,
  device: PvDevice,
  extra: DeviceExtra = {},
): Promise<void> {
  const { backendDomid, domid } = device;
  const paths = devicePaths(device);
  const state = String(XenbusStateInitialising);
  return store.transaction(async (access) => {
    await makeDirectory(access, {
      path: paths.frontend,
      owner: domid,
      reader: backendDomid,
      nodes: { backend: paths.backend, 'backend-id': `${backendDomid}`, state, ...extra.frontend },
    });
    for (const [key, value] of Object.entries(extra.readOnlyFrontend ?? {})) {
      await access.write(`${paths.frontend}/${key}`, value);
      await access.setPermissions(`${paths.frontend}/${key}`, [
        { domid: backendDomid, read: false, write: false },
        { domid, read: true, write: false },
      ]);
    }
    await makeDirectory(access, {
      path: paths.backend,
      owner: backendDomid,
      reader: domid,
      nodes: {
        frontend: paths.frontend,
        'frontend-id': `${domid}`,
        online: '1',
        state,
        ...extra.backend,
      },
    });
  });
}

/**
 * Takes the device away: asks the backend to close it, waits until it has, and removes both directories.
 * @throws Error when the backend does not close in time; the directories are removed all the same
 */
export async function removeDevice(
  runtime: Runtime,
  store: Xenstore,
  device: PvDevice,
): Promise<void> {
  const { backend } = devicePaths(device);
  try {
    await store.transaction(async (access) => {
      const state = await access.read(`${backend}/state`);
      if (state === undefined) return;
      await access.write(`${backend}/online`, '0');
      if (state === String(XenbusStateClosed)) return;
      await access.write(`${backend}/state`, String(XenbusStateClosing));
    });
    await closed(runtime, store, backend);
  } finally {
    await eraseDevice(store, device);
  }
}

/** Removes both directories without asking anybody, as when a domain is destroyed. */
export function eraseDevice(store: Xenstore, device: PvDevice): Promise<void> {
  const paths = devicePaths(device);
  return store.transaction(async (access) => {
    await access.remove(paths.frontend);
    await access.remove(paths.backend);
  });
}

/** Resolves when the backend shows Closed or its directory is gone. */
async function closed(runtime: Runtime, store: Xenstore, backend: string): Promise<void> {
  let resolve: () => void;
  const isClosed = new Promise<void>((resolver) => {
    resolve = resolver;
  });
  const look = async () => {
    const value = await store.read(`${backend}/state`);
    const gone = value === undefined;
    if (gone || parseState(distrust(value)) === XenbusStateClosed) resolve();
  };
  const watch = await store.watch(`${backend}/state`, () => {
    // A failing read means a lost connection to xenstored; the timeout below tells.
    look().catch(() => {});
  });
  try {
    await withTimeout(runtime, isClosed, {
      timeoutMs: REMOVE_PATIENCE_MS,
      onTimeout: () => new Error(`${backend} did not close within ${REMOVE_PATIENCE_MS} ms`),
    });
  } finally {
    await watch[Symbol.asyncDispose]();
  }
}
