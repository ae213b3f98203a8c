// `npm test`: provides what the tests need (Debian packages, when root), builds, and runs every
// test but the lab's under Node's own runner. Arguments select test files by a part of their path.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { provide, unpack, versionOf } from './packages.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const filters = process.argv.slice(2);

provide([
  'gcc',
  'libc6-dev',
  'libdrm-dev',
  'linux-libc-dev',
  'libxen-dev',
  'xenstore-utils',
  'chromium',
  'systemd',
]);
// The real xenstored, for comparison; as a file only, because installing it would set up a Xen host.
unpack(`xen-utils-${versionOf('libxen-dev')}`, `${root}.cache/xen-utils`);
const built = spawnSync(process.execPath, [`${root}scripts/build.mjs`], { stdio: 'inherit' });
if (built.status !== 0) process.exit(built.status ?? 1);

const files = readdirSync(`${root}dist/test`, { recursive: true })
  .filter((name) => name.endsWith('.test.js'))
  .filter((name) => filters.length === 0 || filters.some((part) => name.includes(part)))
  .map((name) => `dist/test/${name}`)
  .sort();
if (files.length === 0) {
  process.stderr.write(`no test file matches ${filters.join(' ')}\n`);
  process.exit(2);
}
// Left to itself, the runner keeps one processor free, which is half of a small machine.
const options = [`--test-concurrency=${availableParallelism()}`, '--test-reporter=spec'];
const run = spawnSync(
  process.execPath,
  ['--enable-source-maps', '--expose-gc', '--test', ...options, ...files],
  { cwd: root, stdio: 'inherit' },
);
process.exit(run.status ?? 1);
