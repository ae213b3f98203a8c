// The guests' first file system: busybox, the kernel's own modules, the test programs, and an init that
// serves the console. The kernel beside it is Debian's, unmodified.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { gunzipSync } from 'node:zlib';
import { command } from './command.ts';
import { CpioWriter } from './cpio.ts';
import { addModules } from './kernel-modules.ts';
import type { UnpackedPackages } from './packages.ts';
import { GUEST_MODULES } from './recipe.ts';
import { GUEST_INIT, GUEST_PROGRAMS_FOLDER } from './sources.ts';

/** Compiles the test programs, static, into `folder`; their names are those of the C files. */
async function compilePrograms(folder: string, drmHeaders: string): Promise<string[]> {
  mkdirSync(folder, { recursive: true });
  const sources = readdirSync(GUEST_PROGRAMS_FOLDER).filter((name) => name.endsWith('.c'));
  const names = sources.map((name) => name.slice(0, -'.c'.length));
  await Promise.all(
    names.map((name) =>
      command(
        [
          'gcc',
          ...['-O2', '-std=gnu11', '-static', '-s', '-Wall', '-Wextra', '-Werror'],
          ...[
            '-isystem',
            drmHeaders,
            '-o',
            `${folder}/${name}`,
            `${GUEST_PROGRAMS_FOLDER}/${name}.c`,
          ],
        ],
        { context: `compiling the guest program ${name}` },
      ),
    ),
  );
  return names;
}

/** Makes the compressed archive and returns its bytes. */
export async function guestImage(packages: UnpackedPackages): Promise<Buffer> {
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-guest-`);
  try {
    const path = `${folder}/guest.cpio`;
    const archive = new CpioWriter(path);
    archive.file('init', readFileSync(GUEST_INIT), 0o755);
    archive.file('bin/busybox', readFileSync(packages.busybox), 0o755);
    archive.characterDevice('dev/console', 5, 1);
    for (const name of await compilePrograms(folder, packages.drmHeaders)) {
      archive.file(`programs/${name}`, readFileSync(`${folder}/${name}`), 0o755);
    }
    archive.file('programs/font.psf', gunzipSync(readFileSync(packages.font)));
    await addModules(archive, {
      modulesFolder: packages.modulesFolder,
      release: packages.kernelRelease,
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
