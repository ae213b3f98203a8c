// What `xl create` and `xl destroy` write into xenstore, for guests of the hypervisor in this process:
// the domain's home, its displays and its keyboard, with the permissions that libxl sets
// (libxl_create.c, libxl_vdispl.c and libxl_vkb.c of the Xen tree say which nodes there are).
//
// Invariant: a guest can read what is said about it and write only below its own device directories and the
// nodes that are meant for it; what the backend goes by belongs to domain 0.

import { PAGE_SIZE } from '../abi/page.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { DOM0, type DomId } from '../xen/ids.ts';
import {
  addDevice,
  type DeviceNodeValues,
  type PvDevice,
  removeDevice,
} from '../xen/xenbus/toolstack.ts';
import type { Xenstore, XenstoreAccess, XenstorePermission } from '../xen/xenstore.ts';
import type { HostedDomain, ShutdownReason } from './hosted-domain.ts';

/** One connector of the guest's display. */
export interface DisplayConfig {
  /** By which a user tells displays apart. */
  readonly uniqueId: string;
  readonly width: number;
  readonly height: number;
}

export interface KeyboardConfig {
  readonly uniqueId?: string;
  /** Says which of them this device has not got (libxl's feature-disable-*). */
  readonly without?: 'keyboard' | 'pointer';
  /** The pointer sends positions in this range. */
  readonly absolute?: { readonly width: number; readonly height: number };
}

/** The devices of a guest, as in its xl.cfg. */
export interface GuestDevices {
  /** Connectors of its display, in their order. */
  readonly displays?: readonly DisplayConfig[];
  /** Those of each further display: what further entries of `vdispl` are. */
  readonly furtherDisplays?: readonly (readonly DisplayConfig[])[];
  /** The backend allocates the buffers of all of its displays. */
  readonly beAlloc?: boolean;
  readonly keyboard?: true | KeyboardConfig;
  /** Beside that one: what further entries of `vkb` are. */
  readonly furtherKeyboards?: readonly KeyboardConfig[];
}

export const DOM0_NAME = 'Domain-0';

/** Nodes of the home that the guest may write. */
const GUEST_WRITABLE = ['control/shutdown', 'data', 'drivers', 'feature', 'attr', 'error'];
/** Directories of the home that it may only read. */
const GUEST_READABLE = ['cpu', 'memory', 'device', 'control', 'store'];

export interface DeviceSpec {
  readonly device: PvDevice;
  readonly backend: DeviceNodeValues;
  /** Readable, not writable for the guest (libxl's ro_front). */
  readonly readOnlyFrontend: DeviceNodeValues;
}

/** `/local/domain/N`. */
export function homeOf(domid: DomId): string {
  return `/local/domain/${domid}`;
}

/** What a guest's devices are in xenstore. */
export function deviceSpecs(domid: DomId, devices: GuestDevices): DeviceSpec[] {
  const { displays = [], furtherDisplays = [], beAlloc = false } = devices;
  const { keyboard, furtherKeyboards = [] } = devices;
  const at = { backendDomid: DOM0, domid };
  const screens = displays.length > 0 ? [displays, ...furtherDisplays] : [];
  const keyboards = keyboard ? [keyboard === true ? {} : keyboard, ...furtherKeyboards] : [];
  return [
    ...screens.map((connectors, devid) => ({
      device: { ...at, devid, backendType: 'vdispl', frontendType: 'vdispl' },
      backend: {},
      readOnlyFrontend: displayNodes(connectors, beAlloc),
    })),
    ...keyboards.map((config, devid) => ({
      device: { ...at, devid, backendType: 'vinput', frontendType: 'vkbd' },
      backend: keyboardNodes(config),
      readOnlyFrontend: {},
    })),
  ];
}

/** Writes the home of domain 0, as xen-init-dom0 does when a host starts. */
export function writeDom0Home(store: Xenstore): Promise<void> {
  return store.transaction((access) =>
    writeAll(access, homeOf(DOM0), { name: DOM0_NAME, domid: `${DOM0}` }),
  );
}

/** Writes the home of a domain that was just built. */
export async function writeHome(
  store: Xenstore,
  { domid, name, limits, storeRing }: HostedDomain,
  { uuid, devices }: { uuid: string; devices: readonly DeviceSpec[] },
): Promise<void> {
  const home = homeOf(domid);
  const memoryKiB = String((limits.maxFrames * PAGE_SIZE) / 1024);
  await store.transaction(async (access) => {
    await access.remove(home);
    await makeNode(access, home, readableBy(domid));
    for (const key of GUEST_READABLE) await makeNode(access, `${home}/${key}`, readableBy(domid));
    for (const key of GUEST_WRITABLE) await makeNode(access, `${home}/${key}`, ownedBy(domid));
    await writeAll(access, home, {
      name,
      domid: `${domid}`,
      vm: `/vm/${uuid}`,
      'memory/target': memoryKiB,
      'memory/static-max': memoryKiB,
      'cpu/0/availability': 'online',
      'store/port': `${storeRing?.port ?? ''}`,
      'store/ring-ref': `${storeRing?.window.frames[0] ?? ''}`,
    });
    await writeAll(access, `/vm/${uuid}`, { name, uuid });
  });
  for (const { device, backend, readOnlyFrontend } of devices) {
    await addDevice(store, device, { backend, readOnlyFrontend });
  }
}

/** Asks the guest to stop; it is free not to (docs/misc/xenstore-paths.pandoc, control/shutdown). */
export function requestShutdown(
  store: Xenstore,
  domid: DomId,
  reason: Exclude<ShutdownReason, 'crash'>,
): Promise<void> {
  return store.write(`${homeOf(domid)}/control/shutdown`, reason);
}

/** Has the backends close the guest's devices, bounded in time, and removes their directories. */
export async function removeDevices(
  runtime: Runtime,
  store: Xenstore,
  devices: readonly DeviceSpec[],
): Promise<void> {
  await Promise.all(
    devices.map(async ({ device }) => {
      try {
        await removeDevice(runtime, store, device);
      } catch (error) {
        const { domid, backendType } = device;
        runtime.log.warn({ err: error, domid, backendType }, 'a backend did not close in time');
      }
    }),
  );
  for (const { device } of devices) {
    await store.remove(`${homeOf(DOM0)}/backend/${device.backendType}/${device.domid}`);
  }
}

/** Removes the home of a domain that is gone. */
export function removeHome(store: Xenstore, domid: DomId, uuid: string): Promise<void> {
  return store.transaction(async (access) => {
    await access.remove(homeOf(domid));
    await access.remove(`/vm/${uuid}`);
  });
}

function displayNodes(displays: readonly DisplayConfig[], beAlloc: boolean): DeviceNodeValues {
  const nodes: Record<string, string> = { 'be-alloc': beAlloc ? '1' : '0' };
  for (const [connector, { uniqueId, width, height }] of displays.entries()) {
    nodes[`${connector}/resolution`] = `${width}x${height}`;
    nodes[`${connector}/unique-id`] = uniqueId;
  }
  return nodes;
}

function keyboardNodes({ uniqueId, without, absolute }: KeyboardConfig): DeviceNodeValues {
  const nodes: Record<string, string> = {};
  if (without !== undefined) nodes[`feature-disable-${without}`] = '1';
  if (uniqueId !== undefined) nodes['unique-id'] = uniqueId;
  if (absolute) {
    nodes['feature-abs-pointer'] = '1';
    nodes.width = `${absolute.width}`;
    nodes.height = `${absolute.height}`;
  }
  return nodes;
}

function readableBy(domid: DomId): XenstorePermission[] {
  return [
    { domid: DOM0, read: false, write: false },
    { domid, read: true, write: false },
  ];
}

function ownedBy(domid: DomId): XenstorePermission[] {
  return [{ domid, read: false, write: false }];
}

async function makeNode(
  access: XenstoreAccess,
  path: string,
  permissions: readonly XenstorePermission[],
): Promise<void> {
  await access.mkdir(path);
  await access.setPermissions(path, permissions);
}

async function writeAll(
  access: XenstoreAccess,
  root: string,
  nodes: DeviceNodeValues,
): Promise<void> {
  for (const [key, value] of Object.entries(nodes)) await access.write(`${root}/${key}`, value);
}
