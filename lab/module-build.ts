// The kernel modules that dom0 needs and Debian does not build, or not so: xen-gntdev with dma-bufs, and
// vkms with two outputs. Built from Debian's own sources of the very kernel that dom0 boots, out of its
// tree, in seconds; guests keep Debian's modules.
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { command } from './command.ts';
import type { UnpackedPackages } from './packages.ts';
import { applyEdits, GNTDEV_EDITS, type SourceEdit, VKMS_EDITS } from './source-edits.ts';

interface ModuleSource {
  readonly name: string;
  /** The folder below the kernel's sources. */
  readonly folder: string;
  readonly edits: readonly SourceEdit[];
  /** In the language of kbuild. */
  readonly makefile: string;
}

const MODULES: readonly ModuleSource[] = [
  {
    name: 'xen-gntdev',
    folder: 'drivers/xen',
    edits: GNTDEV_EDITS,
    makefile: [
      'obj-m := xen-gntdev.o',
      'xen-gntdev-y := gntdev.o gntdev-dmabuf.o',
      'ccflags-y := -DCONFIG_XEN_GNTDEV_DMABUF=1',
      '',
    ].join('\n'),
  },
  {
    name: 'vkms',
    folder: 'drivers/gpu/drm/vkms',
    edits: VKMS_EDITS,
    makefile: [
      'obj-m := vkms.o',
      'vkms-y := vkms_drv.o vkms_plane.o vkms_output.o vkms_formats.o \\',
      '\tvkms_crtc.o vkms_composer.o vkms_writeback.o',
      '',
    ].join('\n'),
  },
];

async function build(module: ModuleSource, work: string, packages: UnpackedPackages) {
  const folder = `${work}/${module.name}`;
  cpSync(`${packages.kernelSources}/${module.folder}`, folder, { recursive: true });
  applyEdits(folder, module.edits);
  writeFileSync(`${folder}/Makefile`, module.makefile);
  const jobs = `-j${availableParallelism()}`;
  await command(['make', '-s', '-C', packages.kernelHeaders, jobs, `M=${folder}`, 'modules'], {
    context: `building the kernel module ${module.name}`,
  });
  return `${folder}/${module.name}.ko`;
}

/** Builds the modules into `target`, as `NAME.ko`. */
export async function buildModules(target: string, packages: UnpackedPackages): Promise<void> {
  const work = mkdtempSync(`${tmpdir()}/xen-zcopy-modules-`);
  try {
    mkdirSync(target, { recursive: true });
    for (const module of MODULES) {
      const path = await build(module, work, packages);
      copyFileSync(path, `${target}/${module.name}.ko`);
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
