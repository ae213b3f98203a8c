// The scenarios of the lab as compiled files, and a run of them against the lab's supervisor.
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
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

/**
 * Runs one file after the other; `environment` names the supervisor, which keeps what explains a failure.
 * Resolves with the exit status, and with the names of the scenarios in which a test failed.
 */
export async function runScenarios(files, { environment, signal }) {
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-scenarios-`);
  const list = `${folder}/failed`;
  const reporters = [
    ...['--test-reporter=spec', '--test-reporter-destination=stdout'],
    ...[`--test-reporter=${root}scripts/failures.mjs`, `--test-reporter-destination=${list}`],
  ];
  const options = ['--enable-source-maps', '--test', '--test-concurrency=1', ...reporters];
  const run = spawn(process.execPath, [...options, ...files], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...environment },
    signal,
  });
  try {
    const status = await new Promise((resolve, reject) => {
      run.on('error', reject);
      run.on('close', (code) => resolve(code ?? 1));
    });
    const failed = readFileSync(list, 'utf8')
      .split('\n')
      .filter((name) => name !== '');
    return { status, failed };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
