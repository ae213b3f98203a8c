// The Debian packages that a command needs: installs the missing ones when it may (root, apt-get),
// and otherwise names them in one line and stops. Nothing is ever skipped because of a missing part.
import { spawnSync } from 'node:child_process';

/** The packages of `names` that dpkg does not report as installed. */
function missing(names) {
  return names.filter((name) => {
    const query = spawnSync('dpkg-query', ['--status', name]);
    return query.status !== 0 || !query.stdout.includes('Status: install ok installed');
  });
}

/**
 * Makes sure that every package in `names` is installed.
 * Exits with status 1 and one clear line when that needs rights or a system we do not have.
 */
export function provide(names) {
  const absent = missing(names);
  if (absent.length === 0) return;
  const remedy = `apt-get install ${absent.join(' ')}`;
  if (process.getuid?.() !== 0 || spawnSync('apt-get', ['--version']).status !== 0) {
    process.stderr.write(`these packages are needed and missing; as root: ${remedy}\n`);
    process.exit(1);
  }
  process.stderr.write(`installing: ${absent.join(' ')}\n`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const run = (...args) =>
    spawnSync('apt-get', args, { env, stdio: ['ignore', 'ignore', 'inherit'] });
  run('update', '-q');
  if (run('install', '-y', '-q', '--no-install-recommends', ...absent).status !== 0) {
    process.stderr.write(`could not install what the tests need: ${remedy}\n`);
    process.exit(1);
  }
}
