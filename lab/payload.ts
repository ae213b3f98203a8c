// The daemon for dom0: the built command line as one module (a single file starts much sooner under
// emulation), and the viewer's page beside it, in the layout of dist/. It is sent to a running
// machine, so that a rebuilt daemon needs neither a new image nor a new boot.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { buildSync } from 'esbuild';
import type { Dom0 } from './dom0.ts';
import { DOM0_PATHS } from './dom0-image.ts';
import { probePath } from './node-files.ts';
import { Program } from './program.ts';
import { REPOSITORY } from './sources.ts';

const ENTRY = `${REPOSITORY}dist/src/cli/main.js`;
const PAGE_FOLDER = `${REPOSITORY}dist/web`;

/** The path of the command line in dom0, for `node`. */
export const DAEMON_MAIN = `${DOM0_PATHS.daemon}/dist/src/cli/main.js`;

/** CommonJS dependencies ask for `require`, which an ES module has to make for itself. */
const REQUIRE =
  "import { createRequire as makeRequire } from 'node:module';const require = makeRequire(import.meta.url);";

/** One module of a compiled file and all it imports, for the node of the images. */
function bundle(entry: string): Uint8Array {
  const { outputFiles } = buildSync({
    entryPoints: [entry],
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    // In dom0 there is no lab, and what it imports must not be asked for.
    external: ['koffi', '*/lab/index.js'],
    banner: { js: REQUIRE },
    write: false,
    logLevel: 'silent',
  });
  return outputFiles[0]!.contents;
}

/** A program of lab/probes/ as one module. */
export function bundledProbe(name: string): Uint8Array {
  return bundle(`${REPOSITORY}dist/lab/probes/${name}.js`);
}

/** Puts a program of lab/probes/ into dom0. @returns its path there, for `node` */
export async function deployProbe(dom0: Dom0, name: string): Promise<string> {
  const path = probePath(name);
  await dom0.writeFile(path, bundledProbe(name));
  return path;
}

/** Puts a program of lab/probes/ into dom0, starts it and leaves it running, as `Guest.startNode` does in a guest. */
export async function startProbe(
  dom0: Dom0,
  name: string,
  ...args: readonly (string | number)[]
): Promise<Program> {
  const path = await deployProbe(dom0, name);
  const domain = {
    name: 'dom0',
    runtime: dom0.runtime,
    run: (line: string) => dom0.run(['sh', '-c', line]),
  };
  return Program.start(domain, ['node', path, ...args].join(' '));
}

/** Runs one of the programs of lab/probes/ in dom0 and returns the JSON that it prints. @throws {CommandFailed} */
export async function probe<T>(dom0: Dom0, name: string, ...args: string[]): Promise<T> {
  const path = await deployProbe(dom0, name);
  return JSON.parse(await dom0.output(['node', path, ...args])) as T;
}

/** Puts the daemon as it is built now into dom0. @throws when it is not built */
export async function deployDaemon(dom0: Dom0): Promise<void> {
  for (const path of [ENTRY, PAGE_FOLDER]) {
    if (!existsSync(path)) throw new Error(`${path} is not there: build first (npm run build)`);
  }
  const folder = DOM0_PATHS.daemon;
  await dom0.writeFile(`${folder}/package.json`, readFileSync(`${REPOSITORY}package.json`));
  await dom0.writeFile(DAEMON_MAIN, bundle(ENTRY));
  for (const name of readdirSync(PAGE_FOLDER)) {
    await dom0.writeFile(`${folder}/dist/web/${name}`, readFileSync(`${PAGE_FOLDER}/${name}`));
  }
}
