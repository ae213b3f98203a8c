// Builds the whole repository into dist/: TypeScript by tsc (types checked, `using` lowered), the
// viewer page by esbuild. Under two seconds, so `npm start` and `npm test` simply call it.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const quiet = process.argv.includes('--quiet');
const startedAt = Date.now();

/** Runs the TypeScript compiler on one project file; its own diagnostics are the error message. */
function compile(project, ...options) {
  const tsc = `${root}node_modules/typescript/bin/tsc`;
  const { status } = spawnSync(process.execPath, [tsc, '-p', project, ...options], {
    cwd: root,
    stdio: 'inherit',
  });
  if (status !== 0) process.exit(status ?? 1);
}

rmSync(`${root}dist`, { recursive: true, force: true });
compile('tsconfig.json');
if (existsSync(`${root}web/tsconfig.json`)) {
  compile('web/tsconfig.json');
  mkdirSync(`${root}dist/web`, { recursive: true });
  await build({
    absWorkingDir: root,
    entryPoints: ['web/main.ts'],
    bundle: true,
    format: 'esm',
    target: 'es2022',
    sourcemap: true,
    outdir: 'dist/web',
    logLevel: 'warning',
  });
  for (const file of ['index.html', 'style.css', 'icon.svg']) {
    cpSync(`${root}web/${file}`, `${root}dist/web/${file}`);
  }
}
if (!quiet) process.stderr.write(`built dist/ in ${Date.now() - startedAt} ms\n`);
