// xen/xen.h with xen/arch-arm.h: the page that a guest on arm64 shares with the hypervisor, where
// the bitmaps of 2-level event channels lie.
import { array, reserved, struct, u8, u32, u64 } from './layout.ts';
import { vcpuTimeInfo } from './xen.ts';

export const XEN_LEGACY_MAX_VCPUS = 1;

export const archVcpuInfo = struct('arch_vcpu_info', 'Arm adds nothing to vcpu_info.', {});

export const vcpuInfo = struct('vcpu_info', 'What the hypervisor tells one virtual CPU.', {
  evtchn_upcall_pending: [0, u8, 'some port of this CPU is pending'],
  pad0: [1, reserved(u8), 'zero: arm masks at the interrupt controller'],
  evtchn_pending_sel: [8, u64, 'one bit for each word of evtchn_pending that has news'],
  arch: [16, archVcpuInfo, 'empty'],
  time: [16, vcpuTimeInfo, 'clock'],
});

export const archSharedInfo = struct('arch_shared_info', 'Arm adds nothing to shared_info.', {});

export const sharedInfo = struct('shared_info', 'The page shared with the hypervisor.', {
  vcpu_info: [0, array(vcpuInfo, XEN_LEGACY_MAX_VCPUS), 'by virtual CPU'],
  evtchn_pending: [48, array(u64, 64), 'one bit for each port: an event has come'],
  evtchn_mask: [560, array(u64, 64), 'one bit for each port: no upcall for it'],
  wc_version: [1072, u32, 'odd while the wall clock changes'],
  wc_sec: [1076, u32, 'wall clock at boot, seconds since 1970, low half'],
  wc_nsec: [1080, u32, 'nanoseconds'],
  wc_sec_hi: [1084, u32, 'high half of the seconds'],
  arch: [1088, archSharedInfo, 'empty'],
});
