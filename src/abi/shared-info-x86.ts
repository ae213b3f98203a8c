// xen/xen.h with xen/arch-x86/xen.h: the page that a guest on x86-64 shares with the hypervisor,
// where the bitmaps of 2-level event channels lie.
import { array, reserved, struct, u8, u32, u64 } from './layout.ts';
import { vcpuTimeInfo } from './xen.ts';

export const XEN_LEGACY_MAX_VCPUS = 32;

export const archVcpuInfo = struct('arch_vcpu_info', 'What x86 adds to vcpu_info.', {
  cr2: [0, u64, 'address of the last page fault'],
  pad: [8, reserved(u64), 'zero'],
});

export const vcpuInfo = struct('vcpu_info', 'What the hypervisor tells one virtual CPU.', {
  evtchn_upcall_pending: [0, u8, 'some port of this CPU is pending'],
  evtchn_upcall_mask: [1, u8, 'the CPU wants no upcall'],
  evtchn_pending_sel: [8, u64, 'one bit for each word of evtchn_pending that has news'],
  arch: [16, archVcpuInfo, 'x86'],
  time: [32, vcpuTimeInfo, 'clock'],
});

export const archSharedInfo = struct('arch_shared_info', 'What x86 adds to shared_info.', {
  max_pfn: [0, u64, 'last frame of the guest'],
  pfn_to_mfn_frame_list_list: [8, u64, 'frame of the list of frames of the frame list'],
  nmi_reason: [16, u64, 'why an NMI came'],
  p2m_cr3: [24, u64, 'page table of p2m_vaddr'],
  p2m_vaddr: [32, u64, 'address of the linear frame list'],
  p2m_generation: [40, u64, 'odd while the frame list changes'],
});

export const sharedInfo = struct('shared_info', 'The page shared with the hypervisor.', {
  vcpu_info: [0, array(vcpuInfo, XEN_LEGACY_MAX_VCPUS), 'by virtual CPU'],
  evtchn_pending: [2048, array(u64, 64), 'one bit for each port: an event has come'],
  evtchn_mask: [2560, array(u64, 64), 'one bit for each port: no upcall for it'],
  wc_version: [3072, u32, 'odd while the wall clock changes'],
  wc_sec: [3076, u32, 'wall clock at boot, seconds since 1970, low half'],
  wc_nsec: [3080, u32, 'nanoseconds'],
  wc_sec_hi: [3084, u32, 'high half of the seconds'],
  arch: [3088, archSharedInfo, 'x86'],
});
