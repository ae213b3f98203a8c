// The Debian packages that a command needs: installs the missing ones when it may (root, apt-get),
// and otherwise names them in one line and stops. Nothing is ever skipped because of a missing part.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';

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

/** The version of an installed package up to its second number, as `4.17`. */
export function versionOf(name) {
  const query = spawnSync('dpkg-query', ['--status', name]);
  return /^Version: (\d+\.\d+)/m.exec(query.stdout.toString())?.[1];
}

/**
 * Unpacks the package `name` into `folder` without installing it, unless that was done before.
 * Exits with status 1 and one clear line when the package cannot be had.
 */
export function unpack(name, folder) {
  if (existsSync(folder)) return;
  process.stderr.write(`fetching: ${name}\n`);
  const unfinished = `${folder}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  const run = (command, ...args) =>
    spawnSync(command, args, { cwd: unfinished, stdio: 'ignore' }).status === 0;
  const fetch = () => run('apt-get', 'download', '-q', name);
  const fetched = fetch() || (run('apt-get', 'update', '-q') && fetch());
  const file = readdirSync(unfinished).find((entry) => entry.endsWith('.deb'));
  if (!fetched || !file || !run('dpkg-deb', '--extract', file, '.')) {
    process.stderr.write(`could not fetch what the tests need: apt-get download ${name}\n`);
    process.exit(1);
  }
  renameSync(unfinished, folder);
}
