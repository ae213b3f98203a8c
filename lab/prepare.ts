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
  utimesSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { basename } from 'node:path';
import { systemRuntime } from '../src/runtime/runtime.ts';
import { bundledAgent, makeDom0Image } from './dom0-image.ts';
import { buildModules } from './module-build.ts';
import { fetchPackages, type Progress, unpackedPackages } from './packages.ts';
import {
  DOM0_INIT,
  DOM0_PROGRAMS_FOLDER,
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
  /** The folder for what this process's machines say, and for what explains a failure. */
  readonly logs: string;
}

export interface PrepareOptions {
  readonly progress: Progress;
  /** Where the prepared parts are kept; the default is below the user's cache folder. */
  readonly cacheFolder?: string;
}

const KEY_DIGITS = 16;
const KEPT_OF_A_KIND = 4;

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

/** The compiled files of this folder that make a part. */
function makers(...names: string[]): Buffer[] {
  return names.map((name) => readFileSync(`${REPOSITORY}dist/lab/${name}.js`));
}

/** Covers all that goes into the image: the parts before it, what makes it, node, koffi, the agent, the programs. */
function imageKey(packages: string, modules: string): string {
  const { size, mtimeMs } = statSync(process.execPath);
  const programs = [GUEST_PROGRAMS_FOLDER, DOM0_PROGRAMS_FOLDER].flatMap((folder) =>
    readdirSync(folder).map((name) => `${folder}/${name}`),
  );
  const files = [DOM0_INIT, GUEST_INIT, `${NODE_MODULES}/koffi/package.json`, ...programs.sort()];
  const node = `${process.version} ${size} ${mtimeMs}`;
  return keyOf([
    packages,
    modules,
    node,
    bundledAgent(),
    ...makers('cpio', 'dom0-image', 'guest-image', 'guest-node-image'),
    ...makers('kernel-modules', 'node-files', 'programs', 'recipe'),
    ...files.map((path) => readFileSync(path)),
  ]);
}

/** Puts what was made in its place, unless another process was faster: both made the same. */
function moveUnlessThere(from: string, to: string): void {
  if (existsSync(to)) rmSync(from, { recursive: true });
  else renameSync(from, to);
}

/**
 * Marks `name` as used now, and removes all but the latest of its kind, so that the cache does not grow.
 * More than one stays, as several builds of the product may use one cache.
 */
function keepLatest(folder: string, { kind, name }: { kind: string; name: string }): void {
  const nowSeconds = systemRuntime().wallMs() / 1000;
  utimesSync(`${folder}/${name}`, nowSeconds, nowSeconds);
  const age = (path: string) => statSync(`${folder}/${path}`).mtimeMs;
  const names = readdirSync(folder).filter((other) => other.startsWith(`${kind}-`));
  const old = names.sort((a, b) => age(b) - age(a)).slice(KEPT_OF_A_KIND);
  for (const path of old) rmSync(`${folder}/${path}`, { recursive: true, force: true });
}

/** A folder of the cache, made by `make` unless it is there. @returns its path */
async function folderOf(
  cacheFolder: string,
  { kind, key, make }: { kind: string; key: string; make: (path: string) => Promise<void> },
): Promise<string> {
  const name = `${kind}-${key}`;
  const path = `${cacheFolder}/${name}`;
  if (!existsSync(path)) {
    const partial = `${path}.partial-${process.pid}`;
    rmSync(partial, { recursive: true, force: true });
    await make(partial);
    moveUnlessThere(partial, path);
  }
  keepLatest(cacheFolder, { kind, name });
  return path;
}

/** The folder for the logs of this process; an earlier process of the same number may have left one. @returns its path */
function emptyLogs(cacheFolder: string): string {
  const name = `logs-${process.pid}`;
  const path = `${cacheFolder}/${name}`;
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path);
  keepLatest(cacheFolder, { kind: 'logs', name });
  return path;
}

/**
 * Prepares what is missing or out of date and says where everything is.
 * The newest packages are fetched when the recipe changes or the cache folder is removed.
 * @throws {SysError} when a program of this machine fails: the error has its words
 */
export async function prepare(options: PrepareOptions): Promise<Prepared> {
  const { progress, cacheFolder = defaultCacheFolder() } = options;
  mkdirSync(cacheFolder, { recursive: true });
  const packagesFolder = await folderOf(cacheFolder, {
    kind: 'packages',
    key: keyOf(makers('debian', 'packages', 'recipe')),
    make: (path) => fetchPackages(path, progress),
  });
  const packages = unpackedPackages(packagesFolder);
  const builtModules = await folderOf(cacheFolder, {
    kind: 'modules',
    key: keyOf([basename(packagesFolder), ...makers('module-build', 'source-edits')]),
    make: (path) => {
      progress('building two kernel modules');
      return buildModules(path, packages);
    },
  });
  const imageName = `dom0-${imageKey(basename(packagesFolder), basename(builtModules))}.cpio.zst`;
  const dom0Image = `${cacheFolder}/${imageName}`;
  if (!existsSync(dom0Image)) await makeDom0Image(dom0Image, { packages, builtModules, progress });
  keepLatest(cacheFolder, { kind: 'dom0', name: imageName });
  return {
    hypervisor: packages.hypervisor,
    kernel: packages.kernel,
    dom0Image,
    logs: emptyLogs(cacheFolder),
  };
}
