// What a toolstack writes that makes no sense, or that nobody expects: nodes of a device, directories that are no
// device's, and a device that is written again and again.
//
// Invariant: what is written here is taken away again; a guest has its proper devices afterwards.

import type { DeviceSpec } from '../src/hypervisor/toolstack.ts';
import type { Random } from '../src/runtime/random.ts';
import { sleep } from '../src/runtime/runtime.ts';
import { DOM0, type DomId } from '../src/xen/ids.ts';
import { type DeviceNodeValues, devicePaths } from '../src/xen/xenbus/toolstack.ts';
import { between, happens, oneOf } from './chance.ts';
import type { Surroundings } from './surroundings.ts';

/** How long directories lie around that are no device's, in milliseconds. */
const LITTER_MS = [1, 2000] as const;
/** Times that a toolstack writes a node which says what it said. */
const DITHERS = 150;

/** By the types of frontends; the guest may read them, and not write them. */
const FRONTEND_SLIPS: Readonly<Record<string, readonly DeviceNodeValues[]>> = {
  vdispl: [
    { '0/resolution': '64' },
    { '0/resolution': '' },
    { '0/resolution': '0x8' },
    { '0/resolution': '64x32x8' },
    { '0/resolution': '16x40000' },
    { '0/unique-id': '' },
    { '0/unique-id': 'x'.repeat(257) },
    { '0/unique-id': '\u0007' },
    { '1/resolution': '16x8' },
    { '3/resolution': '16x8' },
    { 'be-alloc': 'yes' },
  ],
  vkbd: [{}],
};
const BACKEND_SLIPS: Readonly<Record<string, readonly DeviceNodeValues[]>> = {
  vdispl: [{ versions: '7' }],
  vkbd: [
    { 'feature-abs-pointer': '2' },
    { 'feature-abs-pointer': '0' },
    { 'feature-raw-pointer': '1' },
    { 'feature-multi-touch': '0' },
    { 'feature-multi-touch': '1', 'multi-touch-num-contacts': '257' },
    { 'feature-multi-touch': '1', 'multi-touch-num-contacts': '0' },
    { 'feature-disable-keyboard': '1', 'feature-disable-pointer': '1' },
    { width: 'x' },
    { width: '1', height: '1' },
  ],
};
/** What every device's directory has, so that it is not served, or not where its guest is. */
const COMMON_SLIPS: readonly DeviceNodeValues[] = [
  { online: '0' },
  { frontend: '/local/domain/0/device/vdispl/0' },
  { frontend: '/tool' },
  { state: '0' },
  { state: 'x' },
];
/** Names of guests and devices that are none. */
const NO_DEVICES = ['x/0', '1/x', '70000/0', '1/70000', '01/0', '999/0'] as const;

/** The device as a toolstack writes it that makes a mistake. */
export function slipIn({ device, backend, readOnlyFrontend }: DeviceSpec, random: Random) {
  const { frontendType } = device;
  const own = { ...readOnlyFrontend, ...oneOf(random, FRONTEND_SLIPS[frontendType]!) };
  // A connector without a name, of whatever size.
  if (happens(random, 4)) delete (own as Record<string, string>)['0/unique-id'];
  const slips = happens(random, 3) ? COMMON_SLIPS : BACKEND_SLIPS[frontendType]!;
  return {
    device,
    backend: { ...backend, ...oneOf(random, slips) },
    readOnlyFrontend: frontendType === 'vkbd' || happens(random, 4) ? readOnlyFrontend : own,
  } satisfies DeviceSpec;
}

/** Directories where devices are, and which are none, for a while. */
export async function litter({ runtime, host }: Surroundings, random: Random): Promise<void> {
  const { store } = host.dom0;
  const type = oneOf(random, ['vdispl', 'vkbd', 'vinput']);
  const root = `/local/domain/${DOM0}/backend/${type}`;
  const name = oneOf(random, NO_DEVICES);
  const [domid] = name.split('/');
  await store.write(`${root}/${name}/frontend`, `/local/domain/${domid}/device/${type}/0`);
  if (happens(random, 2)) await store.write(`${root}/${name}/state`, '1');
  await sleep(runtime, between(random, ...LITTER_MS));
  await store.transaction(async (access) => {
    await access.remove(`${root}/${name}`);
    const left = await access.directory(`${root}/${domid}`);
    if (left?.length === 0) await access.remove(`${root}/${domid}`);
  });
}

/** Says again and again what is said already, for as long as the device is there. */
export async function dither(
  { host, runs, detached }: Surroundings,
  { device }: DeviceSpec,
): Promise<void> {
  const { store } = host.dom0;
  const node = `${devicePaths(device).backend}/online`;
  const domid: DomId = device.domid;
  for (let left = DITHERS; left > 0 && runs(domid) && !detached.has(domid); left--) {
    await store.transaction(async (access) => {
      const value = await access.read(node);
      if (value !== undefined) await access.write(node, value);
    });
  }
}
