// xen/privcmd.h of Linux (linux-libc-dev): /dev/xen/privcmd, by which a privileged domain's programs make
// hypercalls and map machine frames. Everything is LP64.
import { ioNone } from './ioctl.ts';
import { array, pointer, struct, u16, u32, u64 } from './layout.ts';

export const privcmdHypercall = struct('privcmd_hypercall', 'A hypercall.', {
  op: [0, u64, '__HYPERVISOR_*'],
  arg: [8, array(u64, 5), 'its arguments; addresses must be of memory that stays where it is'],
});
export const IOCTL_PRIVCMD_HYPERCALL = ioNone('P', 0, privcmdHypercall.size);

export const privcmdMmapbatchV2 = struct(
  'privcmd_mmapbatch_v2',
  'Maps frames of a domain into a mapping of the device that shows nothing yet.',
  {
    num: [0, u32, 'frames'],
    dom: [4, u16, 'whose frames, DOMID_SELF for the own ones'],
    addr: [8, u64, 'where the mapping begins'],
    arr: [16, pointer, 'xen_pfn_t[num]'],
    err: [24, pointer, 'out: int[num], 0 or a negative errno'],
  },
);
export const IOCTL_PRIVCMD_MMAPBATCH_V2 = ioNone('P', 4, privcmdMmapbatchV2.size);
