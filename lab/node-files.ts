// The Node that runs us, for images: without its symbols, with koffi where programs of ours find it, and for an
// image that has nothing else also with the C library that it links to.
import { copyFileSync, mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { command } from './command.ts';
import type { CpioWriter } from './cpio.ts';
import type { UnpackedPackages } from './packages.ts';
import { NODE_LIBRARIES } from './recipe.ts';
import { NODE_MODULES } from './sources.ts';

/** Where programs of ours lie in dom0 and in guests: they find koffi in the folder `node_modules` beside. */
export const PROGRAMS_FOLDER = '/opt/xen-zcopy';

const LIBRARIES = 'lib/x86_64-linux-gnu';
const LOADER = 'ld-linux-x86-64.so.2';

/** The path in dom0, and in guests, of a program of lab/probes/, for `node`. */
export function probePath(name: string): string {
  return `${PROGRAMS_FOLDER}/probes/${name}.mjs`;
}

/**
 * Copies node into `folder`, and tries it with the libraries that it will have: a node built for a newer C library
 * than Debian 12's, or for one more, would only fail in the image, far from here.
 * @returns the path of the copy
 */
export async function strippedNode(folder: string, packages: UnpackedPackages): Promise<string> {
  const node = `${folder}/node`;
  const libraries = `${folder}/node-libraries`;
  mkdirSync(libraries);
  for (const name of NODE_LIBRARIES)
    copyFileSync(libraryPath(packages, name), `${libraries}/${name}`);
  await command(['strip', '-o', node, realpathSync(process.execPath)], { context: 'copying node' });
  await command([`${libraries}/${LOADER}`, '--library-path', libraries, node, '-e', '0'], {
    context: `${process.execPath} does not run with the libraries of Debian 12`,
  });
  return node;
}

/** Adds what node and koffi link to, where their loader looks for it. */
export function addNodeLibraries(archive: CpioWriter, packages: UnpackedPackages): void {
  for (const name of NODE_LIBRARIES) {
    archive.file(`${LIBRARIES}/${name}`, readFileSync(libraryPath(packages, name)), 0o755);
  }
  archive.link(`lib64/${LOADER}`, `/${LIBRARIES}/${LOADER}`);
}

export function addKoffi(archive: CpioWriter): void {
  const folder = `${PROGRAMS_FOLDER.slice(1)}/node_modules`;
  for (const name of ['koffi', '@koromix'])
    archive.tree(`${NODE_MODULES}/${name}`, `${folder}/${name}`);
}

function libraryPath(packages: UnpackedPackages, name: string): string {
  return realpathSync(`${packages.dom0Root}/usr/${LIBRARIES}/${name}`);
}
