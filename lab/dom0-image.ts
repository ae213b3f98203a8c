// dom0's whole file system, as one compressed archive that Linux unpacks into memory: Xen's tools, this
// machine's Node and koffi, the lab's agent and programs, and the guests' kernel and images. The daemon is not in
// it: it is sent after the boot, so that a rebuilt daemon needs no new image.
import { mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { buildSync } from 'esbuild';
import { command } from './command.ts';
import { CpioWriter } from './cpio.ts';
import { guestImage } from './guest-image.ts';
import { guestNodeImage } from './guest-node-image.ts';
import { addModules } from './kernel-modules.ts';
import { addKoffi, PROGRAMS_FOLDER, strippedNode } from './node-files.ts';
import type { Progress, UnpackedPackages } from './packages.ts';
import { compilePrograms } from './programs.ts';
import { DOM0_MODULES } from './recipe.ts';
import { AGENT_ENTRY, DOM0_INIT, DOM0_PROGRAMS_FOLDER } from './sources.ts';

/** Where things lie in dom0, for those who use them from outside. */
export const DOM0_PATHS = {
  agent: '/lab/agent.mjs',
  guestKernel: '/lab/guest/vmlinuz',
  guestImage: '/lab/guest/image',
  /** Comes behind the other image for guests that run Node. */
  guestNodeImage: '/lab/guest/node-image',
  daemon: PROGRAMS_FOLDER,
} as const;

const FOLDERS = ['dev', 'proc', 'sys', 'root', 'tmp', 'run', 'var/log', 'var/lib'];
const SYSTEM_FILES: Readonly<Record<string, string>> = {
  'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n',
  'etc/group': 'root:x:0:\n',
  'etc/hosts': '127.0.0.1 localhost dom0\n',
};

/** The compiled agent and what it imports, as one module. */
export function bundledAgent(): string {
  const { outputFiles } = buildSync({
    entryPoints: [AGENT_ENTRY],
    bundle: true,
    platform: 'node',
    format: 'esm',
    write: false,
    logLevel: 'silent',
  });
  return outputFiles[0]!.text;
}

async function addBusybox(archive: CpioWriter, packages: UnpackedPackages) {
  const list = await command([packages.busybox, '--list'], { context: 'asking busybox' });
  for (const name of list.toString('utf8').trim().split('\n')) {
    if (archive.has(`usr/bin/${name}`) || archive.has(`usr/sbin/${name}`)) continue;
    archive.link(`usr/bin/${name}`, 'busybox');
  }
}

async function addPrograms(archive: CpioWriter, folder: string, packages: UnpackedPackages) {
  const { drmHeaders } = packages;
  const target = `${folder}/programs`;
  const names = await compilePrograms({ sources: DOM0_PROGRAMS_FOLDER, target, drmHeaders });
  for (const name of names) {
    archive.file(`usr/bin/${name}`, readFileSync(`${target}/${name}`), 0o755);
  }
}

async function addGuests(archive: CpioWriter, parts: Dom0Parts, node: string) {
  const { packages } = parts;
  archive.file(DOM0_PATHS.guestKernel.slice(1), readFileSync(packages.kernel));
  archive.file(DOM0_PATHS.guestImage.slice(1), await guestImage(parts));
  archive.file(DOM0_PATHS.guestNodeImage.slice(1), await guestNodeImage(packages, node));
}

export interface Dom0Parts {
  readonly packages: UnpackedPackages;
  /** The folder of the modules that Debian does not build. */
  readonly builtModules: string;
  readonly progress: Progress;
}

/** Makes the image and leaves it at `path`. */
export async function makeDom0Image(path: string, parts: Dom0Parts): Promise<void> {
  const { packages, builtModules, progress } = parts;
  progress("making dom0's image");
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-dom0-`);
  try {
    const archive = new CpioWriter(`${folder}/dom0.cpio`);
    archive.tree(packages.dom0Root, '');
    for (const name of FOLDERS) archive.directory(name);
    for (const [name, text] of Object.entries(SYSTEM_FILES)) archive.file(name, text);
    archive.characterDevice('dev/console', 5, 1);
    archive.file('init', readFileSync(DOM0_INIT), 0o755);
    archive.file(DOM0_PATHS.agent.slice(1), bundledAgent());
    addKoffi(archive);
    const node = await strippedNode(folder, packages);
    archive.file('usr/bin/node', readFileSync(node), 0o755);
    await addBusybox(archive, packages);
    await addPrograms(archive, folder, packages);
    await addGuests(archive, parts, node);
    await addModules(archive, {
      modulesFolder: packages.modulesFolder,
      release: packages.kernelRelease,
      builtFolder: builtModules,
      target: 'usr/lib/modules',
      wanted: DOM0_MODULES,
    });
    archive.finish();
    const partial = `${path}.partial-${process.pid}`;
    const compress = ['zstd', '-q', '-6', '-T0', `${folder}/dom0.cpio`, '-o', partial];
    await command(compress, { context: "compressing dom0's image" });
    renameSync(partial, path);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
