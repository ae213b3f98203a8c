// The package as a program imports it: its entries, and the examples of docs/guide.md, which are run.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { DrmXenZcopy } from 'xen-zcopy/drm-xen-zcopy';
import { XenHost } from 'xen-zcopy/hypervisor';
import { openLinuxDomain } from 'xen-zcopy/linux';
import { DOM0, type Domain, type Runtime, SysError, systemRuntime, Zcopy } from 'xen-zcopy/zcopy';

const root = fileURLToPath(new URL('../../', import.meta.url));
/** An example that hangs is wrong. */
const EXAMPLE_TIMEOUT_MS = 60_000;

/** That both providers give what the library takes is for the compiler to say. */
const PROVIDERS: readonly ((runtime: Runtime) => Promise<Domain>)[] = [
  (runtime) => openLinuxDomain({ runtime }),
  async (runtime) => (await XenHost.start({ runtime })).dom0,
];

test('every entry of the package can be imported, and its parts fit each other', async () => {
  const runtime = systemRuntime();
  const domain = await PROVIDERS[1]!(runtime);
  await new DrmXenZcopy({ runtime, domain })[Symbol.asyncDispose]();
  const none = new Zcopy({ runtime, domain }).fromRefs({ domid: DOM0, refs: [] });
  await assert.rejects(none, (error) => error instanceof SysError && error.errnoName === 'EINVAL');
  await domain[Symbol.asyncDispose]();
});

test('nothing but the entries can be imported', async () => {
  const inner = 'xen-zcopy/dist/src/zcopy/release.js';
  await assert.rejects(import(inner), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' });
});

/** The examples of the guide, each with what it prints. */
function examples(): { readonly code: string; readonly printed: string }[] {
  const guide = readFileSync(`${root}docs/guide.md`, 'utf8');
  const blocks = /```js\n(.*?)```\s+```text\n(.*?)```/gs;
  return [...guide.matchAll(blocks)].map(([, code, printed]) => ({
    code: code!,
    printed: printed!,
  }));
}

test('the guide has examples', () => {
  assert(examples().length >= 2);
});

for (const [index, { code, printed }] of examples().entries()) {
  test(`example ${index + 1} of docs/guide.md prints what the guide says`, () => {
    // Inside of the package, so that it finds itself by its name.
    const folder = mkdtempSync(`${root}dist/example-`);
    try {
      writeFileSync(`${folder}/example.mjs`, code);
      const run = spawnSync(process.execPath, [`${folder}/example.mjs`], {
        encoding: 'utf8',
        timeout: EXAMPLE_TIMEOUT_MS,
      });
      assert.equal(run.stderr, '');
      assert.equal(run.stdout, printed);
      assert.equal(run.status, 0);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}
