// What Linux tells about the Xen it runs on, and the numbers of its modules: small files of sysfs and
// procfs, read when asked for (Documentation/ABI/stable/sysfs-hypervisor-xen, xen/features.h).

import { readFileSync } from 'node:fs';
import { PAGE_SIZE } from '../abi/page.ts';

/** How this domain runs: PV has machine frames in its page tables, the others are translated. */
export type GuestType = 'PV' | 'PVH' | 'HVM';

const GUEST_TYPES: readonly GuestType[] = ['PV', 'PVH', 'HVM'];
/** XENFEAT_dom0: this is the first domain. */
const DOM0_BIT = 11n;
/** XENFEAT_direct_mapped: frame numbers of this domain are those of the machine. */
const DIRECT_MAPPED_BIT = 17n;

/** The trimmed text of a small file; undefined where there is none. */
export function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** Undefined without Xen, and on kernels before 4.13. */
export function guestType(): GuestType | undefined {
  const text = textOf('/sys/hypervisor/guest_type');
  return GUEST_TYPES.find((type) => type === text);
}

/** Whether pages that are consecutive for Linux are so in the machine: on a dom0 of Arm. */
export function directMapped(): boolean {
  return hasFeature(DIRECT_MAPPED_BIT);
}

/**
 * Whether the addresses that the kernel gives to devices are the machine's, which is what it grants of a dma-buf: in a PV
 * guest only with Xen's own kind of DMA addresses (swiotlb-xen), which `iommu=soft` asks for. Without it gntdev
 * takes the guest's frame numbers for the machine's, and grants frames that are not the buffer's.
 */
export function knowsMachineFrames(): boolean {
  if (guestType() !== 'PV' || hasFeature(DOM0_BIT)) return true;
  return /(^|\s)iommu=soft(\s|$)/.test(textOf('/proc/cmdline') ?? '');
}

function hasFeature(bit: bigint): boolean {
  const features = textOf('/sys/hypervisor/properties/features');
  if (features === undefined || !/^[0-9a-f]+$/i.test(features)) return false;
  return ((BigInt(`0x${features}`) >> bit) & 1n) === 1n;
}

/** A number that a kernel module is set to; `otherwise` where the module does not say. */
export function moduleParameter(module: string, parameter: string, otherwise: number): number {
  const text = textOf(`/sys/module/${module}/parameters/${parameter}`);
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : otherwise;
}

/** Grants that one request to gntdev may name. */
export function gntdevLimit(): number {
  return moduleParameter('xen_gntdev', 'limit', 64 * 1024);
}

/** Pages that all programs together may share by gntalloc. */
export function gntallocLimit(): number {
  return moduleParameter('xen_gntalloc', 'limit', 1024);
}

/** Pages that this domain can still take without pushing others out, as the kernel estimates. */
export function availablePages(): number {
  const found = /^MemAvailable:\s+(\d+) kB$/m.exec(textOf('/proc/meminfo') ?? '');
  return found === null ? 0 : Math.floor((Number(found[1]) * 1024) / PAGE_SIZE);
}
