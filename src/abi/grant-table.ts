// xen/grant_table.h: grant table version 1 and the arguments of its hypercalls.
// Newer parts of the header (version 2 entries, cache flushing) are not used and not declared.
import {
  ANONYMOUS,
  i16,
  names,
  pointer,
  reserved,
  struct,
  u16,
  u32,
  u64,
  union,
} from './layout.ts';

/** References below this are the toolstack's. */
export const GNTTAB_NR_RESERVED_ENTRIES = 8;
/** The reference of the console ring, so 0 never names a page of anything else. */
export const GNTTAB_RESERVED_CONSOLE = 0;
export const GNTTAB_RESERVED_XENSTORE = 1;

export const grantEntryV1 = struct(
  'grant_entry_v1',
  'A grant, in memory shared by guest and hypervisor; entry number = grant reference.',
  {
    flags: [0, u16, 'GTF_*; written last, as it makes the entry valid'],
    domid: [2, u16, 'the domain that may use the frame'],
    frame: [4, u32, 'GTF_permit_access: the frame granted; GTF_accept_transfer: the one received'],
  },
);

export const GTF_invalid = 0;
export const GTF_permit_access = 1;
export const GTF_accept_transfer = 2;
export const GTF_transitive = 3;
export const GTF_type_mask = 3;
/** Set by the guest: no writable mapping. */
export const GTF_readonly = 1 << 2;
/** Set by the hypervisor: mapped for reading; while it is set the guest must not reuse the entry. */
export const GTF_reading = 1 << 3;
/** Set by the hypervisor: mapped for writing. */
export const GTF_writing = 1 << 4;
export const GTF_PWT = 1 << 5;
export const GTF_PCD = 1 << 6;
export const GTF_PAT = 1 << 7;
/** Only a part of the page is granted; version 2 only. */
export const GTF_sub_page = 1 << 8;
export const GTF_transfer_committed = 1 << 2;
export const GTF_transfer_completed = 1 << 3;

export const GNTTABOP_map_grant_ref = 0;
export const GNTTABOP_unmap_grant_ref = 1;
export const GNTTABOP_setup_table = 2;
export const GNTTABOP_dump_table = 3;
export const GNTTABOP_transfer = 4;
export const GNTTABOP_copy = 5;
export const GNTTABOP_query_size = 6;
export const GNTTABOP_unmap_and_replace = 7;
export const GNTTABOP_get_version = 10;

export const gnttabMapGrantRef = struct('gnttab_map_grant_ref', 'Maps a grant.', {
  host_addr: [0, u64, 'where, or the address of the page table entry'],
  flags: [8, u32, 'GNTMAP_*'],
  ref: [12, u32, 'grant reference'],
  dom: [16, u16, 'the granting domain'],
  status: [18, i16, 'out: GNTST_*'],
  handle: [20, u32, 'out: names the mapping when it is unmapped'],
  dev_bus_addr: [24, u64, 'out: the address for devices'],
});

export const gnttabUnmapGrantRef = struct('gnttab_unmap_grant_ref', 'Ends a mapping.', {
  host_addr: [0, u64, 'as mapped, or 0'],
  dev_bus_addr: [8, u64, 'as mapped, or 0'],
  handle: [16, u32, 'of the mapping'],
  status: [20, i16, 'out: GNTST_*'],
});

export const gnttabSetupTable = struct('gnttab_setup_table', "Grows a domain's grant table.", {
  dom: [0, u16, 'the domain, or DOMID_SELF'],
  nr_frames: [4, u32, 'pages of the table'],
  status: [8, i16, 'out: GNTST_*'],
  frame_list: [16, pointer, 'out: their frame numbers'],
});

/** The source of a copy is a grant, not a frame of the caller. */
export const GNTCOPY_source_gref = 1 << 0;
/** The destination of a copy is a grant. */
export const GNTCOPY_dest_gref = 1 << 1;

export const gnttabCopyPtr = struct('gnttab_copy_ptr', 'One end of a copy.', {
  u: [
    0,
    union(ANONYMOUS, 'By GNTCOPY_*_gref.', {
      ref: [0, u32, 'grant reference'],
      gmfn: [0, u64, 'frame number'],
    }),
    'the page',
  ],
  domid: [8, u16, 'its owner'],
  offset: [10, u16, 'bytes into the page'],
});

export const gnttabCopy = struct('gnttab_copy', 'Copies within a page.', {
  source: [0, gnttabCopyPtr, 'from'],
  dest: [16, gnttabCopyPtr, 'to'],
  len: [32, u16, 'bytes'],
  flags: [34, u16, 'GNTCOPY_*'],
  status: [36, i16, 'out: GNTST_*'],
});

export const gnttabQuerySize = struct('gnttab_query_size', "Size of a domain's grant table.", {
  dom: [0, u16, 'the domain, or DOMID_SELF'],
  nr_frames: [4, u32, 'out: pages now'],
  max_nr_frames: [8, u32, 'out: pages it may have'],
  status: [12, i16, 'out: GNTST_*'],
});

export const gnttabGetVersion = struct('gnttab_get_version', "Version of a domain's grant table.", {
  dom: [0, u16, 'the domain, or DOMID_SELF'],
  pad: [2, reserved(u16), 'zero'],
  version: [4, u32, 'out: 1 or 2'],
});

export const GNTMAP_device_map = 1 << 0;
export const GNTMAP_host_map = 1 << 1;
export const GNTMAP_readonly = 1 << 2;
export const GNTMAP_application_map = 1 << 3;
export const GNTMAP_contains_pte = 1 << 4;

export const GNTST_okay = 0;
export const GNTST_general_error = -1;
export const GNTST_bad_domain = -2;
export const GNTST_bad_gntref = -3;
export const GNTST_bad_handle = -4;
export const GNTST_bad_virt_addr = -5;
export const GNTST_bad_dev_addr = -6;
export const GNTST_no_device_space = -7;
export const GNTST_permission_denied = -8;
export const GNTST_bad_page = -9;
export const GNTST_bad_copy_arg = -10;
export const GNTST_address_too_big = -11;
export const GNTST_eagain = -12;
export const GNTST_no_space = -13;

/** The C name of a status, for logs. */
export const gntstName = names({
  GNTST_okay,
  GNTST_general_error,
  GNTST_bad_domain,
  GNTST_bad_gntref,
  GNTST_bad_handle,
  GNTST_bad_virt_addr,
  GNTST_bad_dev_addr,
  GNTST_no_device_space,
  GNTST_permission_denied,
  GNTST_bad_page,
  GNTST_bad_copy_arg,
  GNTST_address_too_big,
  GNTST_eagain,
  GNTST_no_space,
});
