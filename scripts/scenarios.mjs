// The scenarios of the lab as compiled files, and a run of them against the lab's supervisor.
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * The scenario files whose path has one of `filters` in it, or all; ends the process when none has.
 * Those of one mode come together, as only one machine runs at a time.
 */
export function scenarioFiles(filters) {
  const files = readdirSync(`${root}dist/lab/scenarios`, { recursive: true })
    .filter((name) => name.endsWith('.test.js'))
    .filter((name) => filters.length === 0 || filters.some((part) => name.includes(part)))
    .map((name) => `dist/lab/scenarios/${name}`)
    .sort();
  if (files.length > 0) return files;
  process.stderr.write(`no scenario matches ${filters.join(' ')}\n`);
  return process.exit(2);
}

/** Runs one file after the other; `environment` names the supervisor. Resolves with the exit status. */
export function runScenarios(files, { environment, signal }) {
  const options = ['--test', '--test-reporter=spec', '--test-concurrency=1'];
  const run = spawn(process.execPath, ['--enable-source-maps', ...options, ...files], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...environment },
    signal,
  });
  return new Promise((resolve, reject) => {
    run.on('error', reject);
    run.on('close', (status) => resolve(status ?? 1));
  });
}
