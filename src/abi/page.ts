// The page: the unit of grants on every Xen, whatever page size the guest's own kernel uses.

/** Bytes of a Xen page. */
export const PAGE_SIZE = 4096;
export const PAGE_SHIFT = 12;
