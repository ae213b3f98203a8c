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
import { command } from './command.ts';
import { PrivateApt, unpack } from './debian.ts';
import {
  DOM0_LEFT_OUT,
  DOM0_PACKAGES,
  DRM_HEADERS_PACKAGE,
  FONT_FILE,
  FONT_PACKAGE,
  HEADERS_METAPACKAGE,
  HYPERVISOR_FILE,
  HYPERVISOR_PACKAGE,
  KERNEL_METAPACKAGE,
  SOURCE_FOLDERS,
  SOURCE_PACKAGE,
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
  /** What modules for that kernel are built against: the folder for `make -C`. */
  readonly kernelHeaders: string;
  /** The root of that kernel's sources, of which only the folders of the recipe are there. */
  readonly kernelSources: string;
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

/** The package by its file's name, `NAME_VERSION_ARCHITECTURE.deb`. */
function nameOf(deb: string): string {
  return basename(deb).split('_')[0]!;
}

/** The version of a package by its file's name. */
function versionOf(deb: string): string {
  return basename(deb).split('_')[1]!;
}

/** @throws unless the image, its headers and its sources are all of one version */
function checkOneVersion(debs: readonly string[]): void {
  const versions = new Map(debs.map((deb) => [versionOf(deb), basename(deb)]));
  if (versions.size === 1) return;
  throw new Error(`the kernel's packages are of several versions: ${[...versions.values()]}`);
}

/**
 * Headers that are not installed look for each other below /usr/src: makes that a place beside them,
 * and takes away the kernel itself, whose types (BTF) no module of ours needs and only costs a tool more.
 */
function settleHeaders(folder: string, release: string): void {
  const makefile = `${folder}/usr/src/linux-headers-${release}/Makefile`;
  const text = readFileSync(makefile, 'utf8');
  const settled = text.replace(/^include \/usr\/src\//m, 'include ../');
  if (settled === text) throw new Error(`${makefile} is not as it is known: ${text}`);
  writeFileSync(makefile, settled);
  rmSync(`${folder}/usr/src/linux-headers-${release}/vmlinux`, { force: true });
}

async function unpackSources(deb: string, folder: string): Promise<void> {
  await unpack(deb, { folder });
  const archive = `${folder}/usr/src/${SOURCE_PACKAGE}.tar.xz`;
  const wanted = SOURCE_FOLDERS.map((name) => `${SOURCE_PACKAGE}/${name}`);
  await command(['tar', '-xJf', archive, '-C', folder, '--no-same-owner', ...wanted], {
    context: "unpacking the kernel's sources",
  });
  rmSync(archive);
}

/** Fetches and unpacks everything into `folder`, which must not exist. */
export async function fetchPackages(folder: string, progress: Progress): Promise<void> {
  progress('reading the package lists of Debian 12');
  const apt = await PrivateApt.open(`${folder}/apt`);
  const kernelPackage = await apt.dependency(KERNEL_METAPACKAGE);
  const release = kernelPackage.slice('linux-image-'.length);
  const headersPackage = await apt.dependency(HEADERS_METAPACKAGE);
  const headers = [
    headersPackage,
    headersPackage.replace(/-amd64$/, '-common'),
    headersPackage.replace(/^linux-headers-(.*)-amd64$/, 'linux-kbuild-$1'),
  ];
  progress(`fetching Xen, ${kernelPackage}, its sources and dom0's user space, about 290 MB`);
  const others = [HYPERVISOR_PACKAGE, DRM_HEADERS_PACKAGE, FONT_PACKAGE];
  const names = [kernelPackage, ...headers, SOURCE_PACKAGE, ...others, ...DOM0_PACKAGES];
  const debs = await apt.download(names, `${folder}/debs`);
  progress('unpacking');
  const kernel = [kernelPackage, ...headers, SOURCE_PACKAGE];
  checkOneVersion(debs.filter((deb) => kernel.includes(nameOf(deb))));
  mkdirSync(`${folder}/dom0/usr`, { recursive: true });
  for (const name of MERGED_FOLDERS) {
    mkdirSync(`${folder}/dom0/usr/${name}`);
    symlinkSync(`usr/${name}`, `${folder}/dom0/${name}`);
  }
  for (const deb of debs) {
    const name = nameOf(deb);
    if (name === kernelPackage) await unpack(deb, { folder: `${folder}/linux` });
    else if (headers.includes(name)) await unpack(deb, { folder: `${folder}/headers` });
    else if (name === SOURCE_PACKAGE) await unpackSources(deb, `${folder}/sources`);
    else if (others.includes(name)) await unpack(deb, { folder: `${folder}/others` });
    else await unpack(deb, { folder: `${folder}/dom0`, leftOut: DOM0_LEFT_OUT });
  }
  settleHeaders(`${folder}/headers`, release);
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
    kernelHeaders: `${folder}/headers/usr/src/linux-headers-${release}`,
    kernelSources: `${folder}/sources/${SOURCE_PACKAGE}`,
    dom0Root: `${folder}/dom0`,
    drmHeaders: `${folder}/others/usr/include`,
    font: `${folder}/others/${FONT_FILE}`,
    busybox: `${folder}/dom0/usr/bin/busybox`,
  };
}
