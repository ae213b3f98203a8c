// `npm run test:xen`: provides what the lab needs (Debian packages, when root), builds, prepares, and runs
// the scenarios in real Xen hosts under QEMU, one host per mode and one at a time. Arguments select
// scenario files by a part of their path, such as the mode.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { provide } from './packages.mjs';
import { runScenarios, scenarioFiles } from './scenarios.mjs';

/** The whole run, preparing included, is ended after this long. */
const RUN_TIMEOUT_MS = 45 * 60_000;
/** How often files run in which something failed while QEMU lost a guest. */
const ATTEMPTS_MAX = 4;

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

const files = scenarioFiles(filters);
const { prepare } = await import('../dist/lab/prepare.js');
const { Supervisor } = await import('../dist/lab/supervisor.js');
const { systemRuntime } = await import('../dist/src/runtime/runtime.js');

const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => interrupted.abort());
const signal = AbortSignal.any([interrupted.signal, AbortSignal.timeout(RUN_TIMEOUT_MS)]);

let status = 1;
let lab;
try {
  const prepared = await prepare({ progress });
  lab = await Supervisor.open({ prepared, progress, signal, runtime: systemRuntime() });
  const options = { environment: lab.environment, signal };
  let run = await runScenarios(files, options);
  let lostBefore = 0;
  for (let attempt = 2; attempt <= ATTEMPTS_MAX && run.failed.length > 0; attempt++) {
    const lost = (await lab.lostGuests()) - lostBefore;
    if (lost === 0) break;
    lostBefore += lost;
    progress(`QEMU lost ${lost} guest(s) in Xen's own code (docs/lab.md): again, what failed`);
    run = await runScenarios(run.failed, options);
  }
  status = run.status;
} catch (error) {
  const late = signal.aborted && !interrupted.signal.aborted;
  process.stderr.write(
    late ? `ended after ${RUN_TIMEOUT_MS / 60_000} minutes\n` : `${error.message}\n`,
  );
} finally {
  await lab?.close();
}
progress(status === 0 ? 'passed' : 'failed');
process.exit(status);
