// `npm run test:xen`: provides what the lab needs (Debian packages, when root), builds, prepares, and runs
// the scenarios in real Xen hosts under QEMU, one host per mode and one at a time. Arguments select
// scenario files by a part of their path, such as the mode.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { provide } from './packages.mjs';
import { runScenarios, scenarioFiles } from './scenarios.mjs';

/** The whole run, preparing included, is ended after this long. */
const RUN_TIMEOUT_MS = 45 * 60_000;
/** How often a scenario runs in which something failed and of which QEMU lost a guest. */
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
const { scenarioName } = await import('../dist/lab/attached.js');
const { livedRuntime } = await import('../dist/lab/lived-time.js');
const { prepare } = await import('../dist/lab/prepare.js');
const { Supervisor } = await import('../dist/lab/supervisor.js');
const { systemRuntime } = await import('../dist/src/runtime/runtime.js');

const runtime = livedRuntime(systemRuntime());
const ended = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => ended.abort(new Error(`ended by ${signal}`)));
}
const tooLate = new Error(`ended after ${RUN_TIMEOUT_MS / 60_000} minutes`);
const limit = runtime.after(RUN_TIMEOUT_MS, () => ended.abort(tooLate));
const { signal } = ended;

/** Whether QEMU has lost a guest of this scenario, which then says nothing about us; says so. */
function spoilt(lab, scenario) {
  const lost = lab.lostGuests(scenario);
  for (const { guest, how } of lost) progress(`QEMU lost ${guest} of ${scenario}: it ${how}`);
  return lost.length > 0;
}

/** Runs all, and again what failed when QEMU had lost a guest of it: every other failure stands. @returns the exit status */
async function run(lab) {
  let left = files;
  let status = 0;
  for (let attempt = 1; left.length > 0; attempt++) {
    const ran = await runScenarios(left, { environment: lab.environment, signal });
    const again = ran.failed.filter((scenario) => spoilt(lab, scenario) && attempt < ATTEMPTS_MAX);
    const stands = ran.failed.filter((scenario) => !again.includes(scenario));
    if (stands.length > 0) progress(`failed: ${stands.join(', ')}`);
    if (stands.length > 0 || (ran.status !== 0 && ran.failed.length === 0)) status = 1;
    if (again.length > 0)
      progress(`once more, as QEMU spoilt it (docs/lab.md): ${again.join(', ')}`);
    left = left.filter((file) => again.includes(scenarioName(file)));
  }
  return status;
}

let status = 1;
let lab;
try {
  const prepared = await prepare({ progress });
  lab = await Supervisor.open({ prepared, progress, signal, runtime });
  status = await run(lab);
  if (status !== 0) progress(`all logs of this run are in ${prepared.logs}`);
} catch (error) {
  process.stderr.write(`${(signal.aborted ? signal.reason : error).message}\n`);
} finally {
  limit.cancel();
  await lab?.close();
}
progress(status === 0 ? 'passed' : 'failed');
process.exit(status);
