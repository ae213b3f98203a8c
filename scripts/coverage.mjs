// Runs a program of dist/ in a process of its own and has V8 count there which of its branches are taken.
//
// One process, as V8 leaves out of its report every block that was entered as often as the one around it: reports of two
// runs cannot be added up.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unreached } from './unreached.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * Runs `node ARGUMENTS` at the top of the repository; then prints, for each group of files of src/ that `groups` gives, the
 * branches that it did not reach.
 * @returns its exit code
 */
export async function runCovered(args, groups) {
  const folder = mkdtempSync(join(tmpdir(), 'xen-zcopy-coverage-'));
  try {
    const env = { ...process.env, NODE_V8_COVERAGE: folder };
    const { status } = spawnSync(process.execPath, args, { cwd: root, env, stdio: 'inherit' });
    for (const files of await groups()) process.stdout.write(unreached(folder, files));
    return status ?? 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
