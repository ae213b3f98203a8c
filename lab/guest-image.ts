// The guests' first file system: busybox, the kernel's own modules, the test programs, and an init that
// serves the console. The kernel beside it is Debian's, unmodified, and so are its modules but for the gntdev that makes
// dma-bufs, which only guests that run programs of ours load.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { gunzipSync } from 'node:zlib';
import { command } from './command.ts';
import { CpioWriter } from './cpio.ts';
import { addModules } from './kernel-modules.ts';
import type { UnpackedPackages } from './packages.ts';
import { compilePrograms } from './programs.ts';
import { GUEST_MODULES } from './recipe.ts';
import { GUEST_INIT, GUEST_PROGRAMS_FOLDER } from './sources.ts';

export interface GuestImageParts {
  readonly packages: UnpackedPackages;
  /** The folder of the modules that Debian does not build. */
  readonly builtModules: string;
}

/** Makes the compressed archive and returns its bytes. */
export async function guestImage(parts: GuestImageParts): Promise<Buffer> {
  const { packages, builtModules } = parts;
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-guest-`);
  try {
    const path = `${folder}/guest.cpio`;
    const archive = new CpioWriter(path);
    archive.file('init', readFileSync(GUEST_INIT), 0o755);
    archive.file('bin/busybox', readFileSync(packages.busybox), 0o755);
    archive.characterDevice('dev/console', 5, 1);
    const programs = await compilePrograms({
      sources: GUEST_PROGRAMS_FOLDER,
      target: folder,
      drmHeaders: packages.drmHeaders,
    });
    for (const name of programs) {
      archive.file(`programs/${name}`, readFileSync(`${folder}/${name}`), 0o755);
    }
    archive.file('programs/font.psf', gunzipSync(readFileSync(packages.font)));
    await addModules(archive, {
      modulesFolder: packages.modulesFolder,
      release: packages.kernelRelease,
      builtFolder: builtModules,
      target: 'lib/modules',
      wanted: GUEST_MODULES,
    });
    archive.finish();
    await command(['zstd', '-q', '-9', path], { context: 'compressing the guest image' });
    return readFileSync(`${path}.zst`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
