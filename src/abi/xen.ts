// xen/xen.h: domain numbers, and the parts of shared_info that all architectures have in common.
import { i8, reserved, struct, u32, u64 } from './layout.ts';

/** Domain numbers from here on are not domains. */
export const DOMID_FIRST_RESERVED = 0x7ff0;
/** The caller of a hypercall. */
export const DOMID_SELF = 0x7ff0;
export const DOMID_IO = 0x7ff1;
export const DOMID_XEN = 0x7ff2;
export const DOMID_COW = 0x7ff3;
export const DOMID_INVALID = 0x7ff4;
export const DOMID_IDLE = 0x7fff;
export const DOMID_MASK = 0x7fff;

/** Numbers of hypercalls. */
export const __HYPERVISOR_memory_op = 12;
export const __HYPERVISOR_grant_table_op = 20;

/** Ends in three bytes whose names depend on the interface version; they are not declared. */
export const vcpuTimeInfo = struct('vcpu_time_info', 'The clock of a virtual CPU.', {
  version: [0, u32, 'odd while the hypervisor writes'],
  pad0: [4, reserved(u32), 'zero'],
  tsc_timestamp: [8, u64, 'TSC at the last update'],
  system_time: [16, u64, 'nanoseconds since boot at the last update'],
  tsc_to_system_mul: [24, u32, 'nanoseconds per TSC tick, 32-bit fraction'],
  tsc_shift: [28, i8, 'shift of the TSC difference before the multiplication'],
});
