// The first file system of one guest: the ordinary image for all, and for a guest that runs programs of ours those
// programs, the ordinary image and Node, one archive behind the other, as Linux unpacks them. A program that
// was built anew thus needs neither a new image nor a new boot of dom0.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { CpioWriter } from './cpio.ts';
import type { Dom0 } from './dom0.ts';
import { DOM0_PATHS } from './dom0-image.ts';
import { probePath } from './node-files.ts';
import { bundledProbe } from './payload.ts';

/** A file in dom0 for `xl create`, which needs it no longer than that. */
export interface Ramdisk extends AsyncDisposable {
  readonly path: string;
}

function programsArchive(programs: readonly string[]): Buffer {
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-programs-`);
  try {
    const path = `${folder}/programs.cpio`;
    const archive = new CpioWriter(path);
    for (const name of programs) archive.file(probePath(name).slice(1), bundledProbe(name));
    archive.finish();
    return readFileSync(path);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The ramdisk for the guest `name`; `programs` are of lab/probes/, and none of them means no Node either. */
export async function guestRamdisk(
  dom0: Dom0,
  { name, programs }: { name: string; programs: readonly string[] },
): Promise<Ramdisk> {
  if (programs.length === 0) {
    return { path: DOM0_PATHS.guestImage, [Symbol.asyncDispose]: async () => {} };
  }
  const path = `/run/guests/${name}.ramdisk`;
  // First what is not compressed: Linux takes such an archive only at an aligned place.
  await dom0.writeFile(path, programsArchive(programs));
  await dom0.shell(`cat ${DOM0_PATHS.guestImage} ${DOM0_PATHS.guestNodeImage} >>${path}`);
  const remove = async () => {
    await dom0.run(['rm', '-f', path]);
  };
  return { path, [Symbol.asyncDispose]: remove };
}
