// `npm run test:xen`: provides what the lab needs (Debian packages, when root), builds, prepares and boots
// one real Xen host under QEMU, and runs the scenarios in it. Arguments select scenario files by a
// part of their name.
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { provide } from './packages.mjs';

/** The whole run, preparing included, is ended after this long. */
const RUN_TIMEOUT_MS = 35 * 60_000;

const root = fileURLToPath(new URL('..', import.meta.url));
const filters = process.argv.slice(2);
const startedAt = Date.now();

function progress(line) {
  const seconds = ((Date.now() - startedAt) / 1000).toFixed(0);
  process.stderr.write(`[${seconds} s] ${line}\n`);
}

const built = spawnSync(process.execPath, [`${root}scripts/build.mjs`], { stdio: 'inherit' });
if (built.status !== 0) process.exit(built.status ?? 1);

const { HOST_PACKAGES } = await import('../dist/lab/recipe.js');
provide(HOST_PACKAGES);

const files = readdirSync(`${root}dist/lab/scenarios`)
  .filter((name) => name.endsWith('.test.js'))
  .filter((name) => filters.length === 0 || filters.some((part) => name.includes(part)))
  .map((name) => `dist/lab/scenarios/${name}`)
  .sort();
if (files.length === 0) {
  process.stderr.write(`no scenario matches ${filters.join(' ')}\n`);
  process.exit(2);
}

const { prepare } = await import('../dist/lab/prepare.js');
const { Machine } = await import('../dist/lab/machine.js');
const { attachment } = await import('../dist/lab/attached.js');
const { systemRuntime } = await import('../dist/src/runtime/runtime.js');

const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => interrupted.abort());
const signal = AbortSignal.any([interrupted.signal, AbortSignal.timeout(RUN_TIMEOUT_MS)]);

/** Runs the scenarios one file after the other against the machine; resolves with the exit status. */
function runScenarios(machine) {
  const options = ['--test', '--test-reporter=spec', '--test-concurrency=1'];
  const run = spawn(process.execPath, ['--enable-source-maps', ...options, ...files], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...attachment(machine) },
    signal,
  });
  return new Promise((resolve, reject) => {
    run.on('error', reject);
    run.on('close', (status) => resolve(status ?? 1));
  });
}

let status = 1;
let machine;
try {
  const prepared = await prepare({ progress });
  progress(`booting (log: ${prepared.serialLog})`);
  machine = await Machine.boot({ prepared, signal, runtime: systemRuntime() });
  progress('booted');
  status = await runScenarios(machine);
} catch (error) {
  const late = signal.aborted && !interrupted.signal.aborted;
  process.stderr.write(
    late ? `ended after ${RUN_TIMEOUT_MS / 60_000} minutes\n` : `${error.message}\n`,
  );
} finally {
  await machine?.close();
}
progress(status === 0 ? 'passed' : 'failed');
process.exit(status);
