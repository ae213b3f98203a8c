// The Debian packages that the images are made of, fetched and unpacked in the cache folder.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { PrivateApt, unpack } from './debian.ts';
import {
  DOM0_LEFT_OUT,
  DOM0_PACKAGES,
  DRM_HEADERS_PACKAGE,
  FONT_FILE,
  FONT_PACKAGE,
  HYPERVISOR_FILE,
  HYPERVISOR_PACKAGE,
  KERNEL_METAPACKAGE,
} from './recipe.ts';

/** Says in a line what is being done; only for what takes more than a moment. */
export type Progress = (line: string) => void;

/** The parts of the images that come from Debian, as files and folders of the cache. */
export interface UnpackedPackages {
  /** Xen, uncompressed, as QEMU's multiboot loader wants it. */
  readonly hypervisor: string;
  readonly kernel: string;
  /** What `uname -r` says in that kernel. */
  readonly kernelRelease: string;
  readonly modulesFolder: string;
  /** The root of dom0's user space. */
  readonly dom0Root: string;
  /** Holds `libdrm/drm.h` and its like. */
  readonly drmHeaders: string;
  /** A compressed PSF font. */
  readonly font: string;
  /** A static busybox. */
  readonly busybox: string;
}

const MERGED_FOLDERS = ['bin', 'sbin', 'lib', 'lib64'];

/** Fetches and unpacks everything into `folder`, which must not exist. */
export async function fetchPackages(folder: string, progress: Progress): Promise<void> {
  progress('reading the package lists of Debian 12');
  const apt = await PrivateApt.open(`${folder}/apt`);
  const kernelPackage = await apt.dependency(KERNEL_METAPACKAGE);
  progress(`fetching Xen, ${kernelPackage} and dom0's user space, about 120 MB`);
  const others = [HYPERVISOR_PACKAGE, kernelPackage, DRM_HEADERS_PACKAGE, FONT_PACKAGE];
  const names = [...others, ...DOM0_PACKAGES];
  const debs = await apt.download(names, `${folder}/debs`);
  progress('unpacking');
  mkdirSync(`${folder}/dom0/usr`, { recursive: true });
  for (const name of MERGED_FOLDERS) {
    mkdirSync(`${folder}/dom0/usr/${name}`);
    symlinkSync(`usr/${name}`, `${folder}/dom0/${name}`);
  }
  for (const deb of debs) {
    const name = basename(deb).split('_')[0]!;
    if (name === kernelPackage) await unpack(deb, { folder: `${folder}/linux` });
    else if (others.includes(name)) await unpack(deb, { folder: `${folder}/others` });
    else await unpack(deb, { folder: `${folder}/dom0`, leftOut: DOM0_LEFT_OUT });
  }
  writeFileSync(
    `${folder}/xen.bin`,
    gunzipSync(readFileSync(`${folder}/others/${HYPERVISOR_FILE}`)),
  );
  for (const spent of ['apt', 'debs']) rmSync(`${folder}/${spent}`, { recursive: true });
}

/** Names what fetchPackages() left in `folder`. */
export function unpackedPackages(folder: string): UnpackedPackages {
  const release = readdirSync(`${folder}/linux/lib/modules`)[0];
  if (release === undefined || !existsSync(`${folder}/xen.bin`)) {
    throw new Error(`the cache is damaged: remove ${folder}`);
  }
  return {
    hypervisor: `${folder}/xen.bin`,
    kernel: `${folder}/linux/boot/vmlinuz-${release}`,
    kernelRelease: release,
    modulesFolder: `${folder}/linux/lib/modules`,
    dom0Root: `${folder}/dom0`,
    drmHeaders: `${folder}/others/usr/include`,
    font: `${folder}/others/${FONT_FILE}`,
    busybox: `${folder}/dom0/usr/bin/busybox`,
  };
}
