// Prepares what the lab boots, once, into a cache folder: Xen, the kernel, dom0's image. Each part has a
// key made of everything it is made from; a part whose key is there already is used as it is.
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { bundledAgent, makeDom0Image } from './dom0-image.ts';
import { fetchPackages, type Progress, unpackedPackages } from './packages.ts';
import {
  DOM0_INIT,
  GUEST_INIT,
  GUEST_PROGRAMS_FOLDER,
  NODE_MODULES,
  REPOSITORY,
} from './sources.ts';

/** What Machine needs to boot. */
export interface Prepared {
  readonly hypervisor: string;
  readonly kernel: string;
  readonly dom0Image: string;
}

export interface PrepareOptions {
  readonly progress: Progress;
  /** Where the prepared parts are kept; the default is below the user's cache folder. */
  readonly cacheFolder?: string;
}

const KEY_DIGITS = 16;

/** `$XDG_CACHE_HOME/xen-zcopy/lab`, or the same below `~/.cache`. */
export function defaultCacheFolder(): string {
  const caches = process.env.XDG_CACHE_HOME || `${homedir()}/.cache`;
  return `${caches}/xen-zcopy/lab`;
}

function keyOf(parts: readonly (string | Buffer)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.length}:`).update(part);
  return hash.digest('hex').slice(0, KEY_DIGITS);
}

function packagesKey(): string {
  const makers = ['debian', 'packages', 'recipe'];
  return keyOf(makers.map((name) => readFileSync(`${REPOSITORY}dist/lab/${name}.js`)));
}

/** Covers all that goes into the image: what makes it, node, koffi, the agent, the programs. */
async function imageKey(packages: string): Promise<string> {
  const { size, mtimeMs } = statSync(process.execPath);
  const programs = readdirSync(GUEST_PROGRAMS_FOLDER).sort();
  const makers = ['cpio', 'dom0-image', 'guest-image', 'kernel-modules', 'recipe'];
  const files = [
    DOM0_INIT,
    GUEST_INIT,
    `${NODE_MODULES}/koffi/package.json`,
    ...programs.map((name) => `${GUEST_PROGRAMS_FOLDER}/${name}`),
    ...makers.map((name) => `${REPOSITORY}dist/lab/${name}.js`),
  ];
  const node = `${process.version} ${size} ${mtimeMs}`;
  return keyOf([packages, node, await bundledAgent(), ...files.map((path) => readFileSync(path))]);
}

/** Removes what earlier keys left, so that the cache does not grow. */
function removeOthers(folder: string, { kind, keep }: { kind: string; keep: string }): void {
  for (const name of readdirSync(folder)) {
    if (!name.startsWith(`${kind}-`) || name === keep) continue;
    rmSync(`${folder}/${name}`, { recursive: true, force: true });
  }
}

/**
 * Prepares what is missing or out of date and says where everything is.
 * The newest packages are fetched when the recipe changes or the cache folder is removed.
 * @throws {SysError} when a program of this machine fails: the error has its words
 */
export async function prepare(options: PrepareOptions): Promise<Prepared> {
  const { progress, cacheFolder = defaultCacheFolder() } = options;
  mkdirSync(cacheFolder, { recursive: true });
  const packagesName = `packages-${packagesKey()}`;
  const packagesFolder = `${cacheFolder}/${packagesName}`;
  if (!existsSync(packagesFolder)) {
    const partial = `${packagesFolder}.partial`;
    rmSync(partial, { recursive: true, force: true });
    await fetchPackages(partial, progress);
    renameSync(partial, packagesFolder);
  }
  removeOthers(cacheFolder, { kind: 'packages', keep: packagesName });
  const packages = unpackedPackages(packagesFolder);
  const imageName = `dom0-${await imageKey(packagesName)}.cpio.zst`;
  const dom0Image = `${cacheFolder}/${imageName}`;
  if (!existsSync(dom0Image)) await makeDom0Image(dom0Image, { packages, progress });
  removeOthers(cacheFolder, { kind: 'dom0', keep: imageName });
  return { hypervisor: packages.hypervisor, kernel: packages.kernel, dom0Image };
}
