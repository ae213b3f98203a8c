// What the lab is made of: the Debian packages that this machine needs to prepare and run it, and the
// packages, kernel modules and files that go into its images. A change here changes the images' keys.

/** Debian packages that must be installed on the machine that prepares and runs the lab. */
export const HOST_PACKAGES: readonly string[] = [
  'apt',
  'dpkg',
  'gcc',
  'libc6-dev',
  'linux-libc-dev',
  'make',
  'qemu-system-x86',
  'tar',
  'xz-utils',
  'zstd',
];

/** The hypervisor's package and the file in it, of Debian 12. */
export const HYPERVISOR_PACKAGE = 'xen-hypervisor-4.17-amd64';
export const HYPERVISOR_FILE = 'boot/xen-4.17-amd64.gz';

/** Depends on the newest kernel of the 6.12 series that bookworm-security has: dom0's and the guests'. */
export const KERNEL_METAPACKAGE = 'linux-image-6.12-amd64';

/** Depends on the headers of the same kernel; those need the two named after them. */
export const HEADERS_METAPACKAGE = 'linux-headers-6.12-amd64';

/** The sources of the same kernel, for the modules that dom0 needs and Debian does not build. */
export const SOURCE_PACKAGE = 'linux-source-6.12';

/** The folders of those sources that hold the modules; nothing else of them is kept. */
export const SOURCE_FOLDERS: readonly string[] = ['drivers/xen', 'drivers/gpu/drm/vkms'];

/** The user space of dom0: Xen's tools and daemons, their libraries, what Node links to, busybox. */
export const DOM0_PACKAGES: readonly string[] = [
  'busybox-static',
  'libc6',
  'libgcc-s1',
  'liblzma5',
  'libncurses6',
  'libstdc++6',
  'libtinfo6',
  'libuuid1',
  'libxencall1',
  'libxendevicemodel1',
  'libxenevtchn1',
  'libxenforeignmemory1',
  'libxengnttab1',
  'libxenhypfs1',
  'libxenmisc4.17',
  'libxenstore4',
  'libxentoolcore1',
  'libxentoollog1',
  'libyajl2',
  'libzstd1',
  'xen-utils-4.17',
  'xen-utils-common',
  'xenstore-utils',
  'zlib1g',
];

/** Has the kernel's headers of DRM, for the test programs; linux-libc-dev leaves them to it. */
export const DRM_HEADERS_PACKAGE = 'libdrm-dev';

/** Has the font with which guests draw their text console, and where it is in it. */
export const FONT_PACKAGE = 'console-setup-linux';
export const FONT_FILE = 'usr/share/consolefonts/Lat15-VGA16.psf.gz';

/** What of those packages nobody in dom0 uses, as patterns for tar. */
export const DOM0_LEFT_OUT: readonly string[] = [
  './usr/share',
  './usr/include',
  './usr/lib/x86_64-linux-gnu/gconv',
  './usr/lib/xen-4.17/boot',
  './usr/lib/xen-4.17/lib/python',
];

/** Where Debian keeps the programs of this Xen version. */
export const XEN_PROGRAMS = '/usr/lib/xen-4.17/bin';

/** Kernel modules of dom0; what they depend on comes along. `vkms` and `xen-gntdev` are the built ones. */
export const DOM0_MODULES: readonly string[] = [
  'e1000',
  'vkms',
  'xen-evtchn',
  'xen-gntalloc',
  'xen-gntdev',
  'xen-privcmd',
  'xenfs',
];

/** Kernel modules of the guests; `xen-gntdev` is the built one. */
export const GUEST_MODULES: readonly string[] = [
  'drm_xen_front',
  'evdev',
  'xen-evtchn',
  'xen-gntalloc',
  'xen-gntdev',
  'xen-privcmd',
];

/** What the Node of the images and koffi link to, and the loader of it. */
export const NODE_LIBRARIES: readonly string[] = [
  'ld-linux-x86-64.so.2',
  'libc.so.6',
  'libdl.so.2',
  'libgcc_s.so.1',
  'libm.so.6',
  'libpthread.so.0',
  'libstdc++.so.6',
];
