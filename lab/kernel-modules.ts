// Modules of a Debian kernel for a small image: found by name in the unpacked package, with everything
// they depend on, decompressed, and listed in the text `modules.dep` that busybox's modprobe reads.
import { readdirSync } from 'node:fs';
import { command } from './command.ts';
import type { CpioWriter } from './cpio.ts';

interface KernelModule {
  readonly fileName: string;
  readonly bytes: Buffer;
  readonly dependencies: readonly string[];
}

/** The name as the kernel knows it: file names may have `-` where the kernel says `_`. */
function kernelName(name: string): string {
  return name.replaceAll('-', '_');
}

function findModules(folder: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const name = /([^/]+)\.ko\.xz$/.exec(path)?.[1];
    if (name !== undefined) found.set(kernelName(name), `${folder}/${path}`);
  }
  return found;
}

async function load(name: string, path: string): Promise<KernelModule> {
  const bytes = await command(['xz', '-dc', path], { context: `unpacking the module ${name}` });
  // The section .modinfo holds NUL-terminated KEY=VALUE strings.
  const depends = /\0depends=([^\0]*)\0/.exec(bytes.toString('latin1'))?.[1] ?? '';
  const dependencies = depends.split(',').filter((dependency) => dependency !== '');
  return { fileName: `${name}.ko`, bytes, dependencies: dependencies.map(kernelName) };
}

/**
 * Writes the modules `wanted` and all they depend on into the archive, below
 * `FOLDER/KERNEL_RELEASE` (FOLDER is `lib/modules` or what that links to). A wanted module that is
 * built into the kernel has no file: that is a mistake in the recipe and throws.
 */
export async function addModules(
  archive: CpioWriter,
  options: { modulesFolder: string; release: string; target: string; wanted: readonly string[] },
): Promise<void> {
  const available = findModules(`${options.modulesFolder}/${options.release}`);
  const loaded = new Map<string, KernelModule>();
  const queue = options.wanted.map(kernelName);
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
    if (loaded.has(name)) continue;
    const path = available.get(name);
    if (path === undefined) throw new Error(`the kernel ${options.release} has no module ${name}`);
    const module = await load(name, path);
    loaded.set(name, module);
    queue.push(...module.dependencies);
  }
  const folder = `${options.target}/${options.release}`;
  for (const module of loaded.values()) archive.file(`${folder}/${module.fileName}`, module.bytes);
  archive.file(`${folder}/modules.dep`, dependencyList(loaded));
}

/** modules.dep: per module its dependencies, direct and indirect, those to load last coming first. */
function dependencyList(modules: ReadonlyMap<string, KernelModule>): string {
  const chain = (name: string): string[] => {
    const direct = modules.get(name)!.dependencies;
    const all = [...direct, ...direct.flatMap(chain)];
    // Only the last mention counts: a module comes after all that need it.
    return all.filter((dependency, index) => all.lastIndexOf(dependency) === index);
  };
  const lines = [...modules].map(([name, module]) => {
    const files = chain(name).map((dependency) => modules.get(dependency)!.fileName);
    return `${module.fileName}: ${files.join(' ')}`.trimEnd();
  });
  return `${lines.join('\n')}\n`;
}
