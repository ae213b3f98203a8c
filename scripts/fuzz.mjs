// `npm run fuzz`: builds, and runs the fuzzers (test/fuzz/main.ts says how). With `--coverage`, says afterwards
// which branches of the parsers they did not reach.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unreached } from './unreached.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const coverage = process.argv.includes('--coverage');
const rest = process.argv.slice(2).filter((argument) => argument !== '--coverage');

const built = spawnSync(process.execPath, [`${root}scripts/build.mjs`, '--quiet'], {
  stdio: 'inherit',
});
if (built.status !== 0) process.exit(built.status ?? 1);

const folder = mkdtempSync(join(tmpdir(), 'xen-zcopy-fuzz-'));
try {
  const env = coverage ? { ...process.env, NODE_V8_COVERAGE: folder } : process.env;
  const main = `${root}dist/test/fuzz/main.js`;
  const run = spawnSync(process.execPath, ['--enable-source-maps', '--expose-gc', main, ...rest], {
    cwd: root,
    env,
    stdio: 'inherit',
  });
  process.exitCode = run.status ?? 1;
  if (coverage) {
    const { FUZZERS } = await import(`${root}dist/test/fuzz/fuzzers.js`);
    const files = [...new Set(FUZZERS.flatMap(({ parsers }) => parsers))].sort();
    process.stdout.write(unreached(folder, files));
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
