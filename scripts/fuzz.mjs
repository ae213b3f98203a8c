// `npm run fuzz`: builds, and runs the fuzzers (test/fuzz/main.ts says how). With `--coverage`, says afterwards
// which branches of the parsers they did not reach.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { runCovered } from './coverage.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const coverage = process.argv.includes('--coverage');
const rest = process.argv.slice(2).filter((argument) => argument !== '--coverage');

const built = spawnSync(process.execPath, [`${root}scripts/build.mjs`, '--quiet'], {
  stdio: 'inherit',
});
if (built.status !== 0) process.exit(built.status ?? 1);

const fuzzers = ['--enable-source-maps', '--expose-gc', `${root}dist/test/fuzz/main.js`, ...rest];
process.exitCode = coverage
  ? await runCovered(fuzzers, parsers)
  : (spawnSync(process.execPath, fuzzers, { cwd: root, stdio: 'inherit' }).status ?? 1);

async function parsers() {
  const { FUZZERS } = await import(`${root}dist/test/fuzz/fuzzers.js`);
  return [[...new Set(FUZZERS.flatMap(({ parsers: files }) => files))].sort()];
}
