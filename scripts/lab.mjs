// `npm run lab`: provides what the lab needs (Debian packages, when root), builds, and runs
// `xen-zcopy lab` with the arguments given.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { provide } from './packages.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

const built = spawnSync(process.execPath, [`${root}scripts/build.mjs`, '--quiet'], {
  stdio: 'inherit',
});
if (built.status !== 0) process.exit(built.status ?? 1);

const { HOST_PACKAGES } = await import('../dist/lab/recipe.js');
provide(HOST_PACKAGES);
process.argv.splice(2, 0, 'lab');
await import('../dist/src/cli/main.js');
