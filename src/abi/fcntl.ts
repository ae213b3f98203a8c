// linux/fcntl.h: duplicates of descriptors, the size of pipes, and seals, which take something away from a memory
// file for good.

const F_LINUX_SPECIFIC_BASE = 1024;

/** Another descriptor of the same file, closed on exec. */
export const F_DUPFD_CLOEXEC = F_LINUX_SPECIFIC_BASE + 6;
export const F_SETPIPE_SZ = F_LINUX_SPECIFIC_BASE + 7;
export const F_ADD_SEALS = F_LINUX_SPECIFIC_BASE + 9;
export const F_GET_SEALS = F_LINUX_SPECIFIC_BASE + 10;

/** No further seals. */
export const F_SEAL_SEAL = 0x0001;
export const F_SEAL_SHRINK = 0x0002;
export const F_SEAL_GROW = 0x0004;
/** No writing: refused with EBUSY while anybody maps the file for writing or holds one of its pages. */
export const F_SEAL_WRITE = 0x0008;
/** No new writable mapping; those that are there stay. */
export const F_SEAL_FUTURE_WRITE = 0x0010;
