// linux/memfd.h: how memory files are made.

export const MFD_CLOEXEC = 0x0001;
/** Without it a memfd is born with F_SEAL_SEAL and takes no others. */
export const MFD_ALLOW_SEALING = 0x0002;
