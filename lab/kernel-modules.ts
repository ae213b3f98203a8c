// Modules of a Debian kernel for a small image: found by name in the unpacked package, with everything
// they depend on, decompressed, and listed in the text `modules.dep` that busybox's modprobe reads.
import { readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
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

/** The modules below the folders by their names; a later folder's comes before an earlier one's. */
function findModules(folders: readonly string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const folder of folders) {
    for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      const name = /([^/]+)\.ko(\.xz)?$/.exec(path)?.[1];
      if (name !== undefined) found.set(kernelName(name), `${folder}/${path}`);
    }
  }
  return found;
}

function read(name: string, path: string): Promise<Buffer> {
  if (path.endsWith('.ko')) return readFile(path);
  return command(['xz', '-dc', path], { context: `unpacking the module ${name}` });
}

async function load(name: string, path: string): Promise<KernelModule> {
  const bytes = await read(name, path);
  // The section .modinfo holds NUL-terminated KEY=VALUE strings.
  const depends = /\0depends=([^\0]*)\0/.exec(bytes.toString('latin1'))?.[1] ?? '';
  const dependencies = depends.split(',').filter((dependency) => dependency !== '');
  return { fileName: `${name}.ko`, bytes, dependencies: dependencies.map(kernelName) };
}

export interface ModuleSelection {
  /** Debian's, below the kernel's release. */
  readonly modulesFolder: string;
  readonly release: string;
  /** Modules that take the place of Debian's of the same name, or are added to them. */
  readonly builtFolder?: string;
  /** `lib/modules`, or what that links to. */
  readonly target: string;
  readonly wanted: readonly string[];
}

/**
 * Writes the modules `wanted` and all they depend on into the archive, below `TARGET/KERNEL_RELEASE`.
 * A wanted module that is built into the kernel has no file: that is a mistake in the recipe and throws.
 */
export async function addModules(archive: CpioWriter, options: ModuleSelection): Promise<void> {
  const built = options.builtFolder === undefined ? [] : [options.builtFolder];
  const available = findModules([`${options.modulesFolder}/${options.release}`, ...built]);
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
