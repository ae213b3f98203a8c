// The house rules that no compiler knows: which folder may import which, where time and chance may be
// asked for, and that every source file says what it is.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join, normalize } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Floors from the ground up: a folder imports from itself and from those before it. */
const FLOORS = [
  'abi',
  'runtime',
  'posix',
  'xen',
  'hypervisor',
  'linux',
  'zcopy',
  'display',
  'input',
  'share',
  'outputs',
  'daemon',
  'server',
  'cli',
];

/** Folders that must not know who provides their domain. */
const PROVIDER_BLIND = ['zcopy', 'display', 'input', 'share', 'daemon', 'server'];
const PROVIDERS = ['hypervisor', 'linux'];
/** Of the outputs, the one that shows on this host's monitors. */
const LINUX_OUTPUT = 'outputs/kms/';

/** What else may be imported, and by whom: native code by `posix` alone, libraries where they belong. */
const LIBRARIES: Readonly<Record<string, readonly string[]>> = {
  koffi: ['posix'],
  pino: ['runtime'],
  pngjs: ['outputs'],
  ws: ['server'],
  zod: ['server', 'cli'],
  'prom-client': ['daemon', 'server'],
  commander: ['cli'],
};

/** The ways out of src/: the commands that boot the lab and run the simulation. */
const DOORS: Readonly<Record<string, string>> = {
  'cli/lab.ts': '../../lab/index.ts',
  'cli/sim.ts': '../../sim/index.ts',
};

const MAX_LINES = 500;

interface SourceFile {
  readonly path: string;
  readonly folder: string;
  readonly text: string;
}

function sourceFiles(): SourceFile[] {
  return readdirSync(`${root}src`, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => ({
      path: name,
      folder: name.split('/')[0]!,
      text: readFileSync(`${root}src/${name}`, 'utf8'),
    }));
}

function importsOf({ text }: SourceFile): string[] {
  const pattern = /(?:^|\n)\s*(?:import|export)\s[^;]*?from\s+'([^']+)'|import\(\s*'([^']+)'\s*\)/g;
  return [...text.matchAll(pattern)].map((match) => (match[1] ?? match[2])!);
}

/** The complaint about one import, or undefined when it is allowed. */
function complaint(file: SourceFile, specifier: string): string | undefined {
  if (specifier.startsWith('node:')) return undefined;
  if (DOORS[file.path] === specifier) return undefined;
  if (!specifier.startsWith('.')) {
    const allowed = LIBRARIES[specifier];
    return allowed?.includes(file.folder) ? undefined : `${file.path}: imports ${specifier}`;
  }
  const target = normalize(join(file.path, '..', specifier)).split('/')[0]!;
  if (target === file.folder) return undefined;
  const upward = FLOORS.indexOf(target) > FLOORS.indexOf(file.folder);
  const otherProvider = PROVIDERS.includes(target) && PROVIDERS.includes(file.folder);
  const provider = PROVIDERS.includes(target) && PROVIDER_BLIND.includes(file.folder);
  const output = PROVIDERS.includes(target) && file.folder === 'outputs';
  const foreignOutput = output && !(target === 'linux' && file.path.startsWith(LINUX_OUTPUT));
  const unknown = !FLOORS.includes(target);
  return upward || otherProvider || provider || foreignOutput || unknown
    ? `${file.path}: imports ${specifier}`
    : undefined;
}

test('every folder of src/ stands on the floors below it', () => {
  const files = sourceFiles();
  assert(files.length > 15, 'the walk found too few files to mean anything');
  const unknown = files.filter(({ folder }) => !FLOORS.includes(folder)).map(({ path }) => path);
  assert.deepEqual(unknown, [], 'files outside of the floors');
  const complaints = files.flatMap((file) =>
    importsOf(file).flatMap((specifier) => complaint(file, specifier) ?? []),
  );
  assert.deepEqual(complaints, []);
});

test('the walk itself notices an import that goes up', () => {
  const file = { path: 'abi/x.ts', folder: 'abi', text: "import { a } from '../xen/ids.ts';\n" };
  assert.deepEqual(
    importsOf(file).map((specifier) => complaint(file, specifier)),
    ['abi/x.ts: imports ../xen/ids.ts'],
  );
});

test('time, timers and chance are asked for in src/runtime alone', () => {
  const banned =
    /\b(Date\.now|performance\.now|process\.hrtime|Math\.random|setTimeout|setInterval|setImmediate)\b/;
  const found = sourceFiles()
    .filter(({ folder, text }) => folder !== 'runtime' && banned.test(text))
    .map(({ path }) => path);
  assert.deepEqual(found, []);
});

test('every source file says at its top what it is, and is short enough to be one job', () => {
  const files = sourceFiles();
  const silent = files.filter(({ text }) => !/^(#!.*\n)?\/\/ /.test(text)).map(({ path }) => path);
  assert.deepEqual(silent, [], 'files without an opening comment');
  const long = files.filter(({ text }) => text.split('\n').length > MAX_LINES);
  assert.deepEqual(
    long.map(({ path }) => path),
    [],
    `files over ${MAX_LINES} lines`,
  );
});

test('nothing is left for later in the sources', () => {
  const found = sourceFiles()
    .filter(({ text }) =>
      /\b(TODO|FIXME|XXX|HACK)\b|@ts-ignore|biome-ignore|\bas any[;,.)\]]/.test(text),
    )
    .map(({ path }) => path);
  assert.deepEqual(found, []);
});
