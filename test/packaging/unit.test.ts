// The systemd unit in packaging/: systemd understands all of it and finds it tight enough, and what it names of ours,
// commands, options and devices, is what there is.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  EVTCHN,
  GNTALLOC,
  GNTDEV,
  HYPERCALL,
  PRIVCMD,
  UDMABUF,
  XENBUS,
} from '../../src/linux/device.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const main = join(root, 'dist/src/cli/main.js');
const unit = readFileSync(join(root, 'packaging/xen-zcopy.service'), 'utf8');
/** Of 100, as systemd counts what a service could still do to its system. */
const EXPOSURE_MAX = 30;

const directory = mkdtempSync(join(tmpdir(), 'xen-zcopy-unit-'));
after(() => rmSync(directory, { recursive: true }));

/** The values of a setting, in their order. */
function values(setting: string): string[] {
  const lines = unit.split('\n').filter((line) => line.startsWith(`${setting}=`));
  return lines.map((line) => line.slice(setting.length + 1));
}

const [program, command, ...words] = values('ExecStart')[0]!.split(' ');

/** The unit as it would be installed, where its program is. */
function installed(): string {
  const executable = join(directory, 'xen-zcopy');
  writeFileSync(executable, `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`);
  chmodSync(executable, 0o755);
  const path = join(directory, 'xen-zcopy.service');
  writeFileSync(path, unit.replace(program!, executable));
  return path;
}

function analyze(...argv: string[]) {
  const { status, stdout, stderr, error } = spawnSync('systemd-analyze', argv, {
    encoding: 'utf8',
  });
  assert.ifError(error);
  return { status, said: stderr, report: stdout };
}

test('systemd has nothing to complain of', () => {
  assert.deepEqual(analyze('verify', installed()), { status: 0, said: '', report: '' });
});

test('it may do little else than it needs to', () => {
  const options = ['--no-pager', '--offline=true', `--threshold=${EXPOSURE_MAX}`];
  const { status, report } = analyze('security', ...options, installed());
  assert.equal(status, 0, report);
});

test('its command has every option that it is given', () => {
  const { status, stdout } = spawnSync(process.execPath, [main, command!, '--help'], {
    encoding: 'utf8',
  });
  assert.equal(status, 0);
  const options = words.filter((word) => word.startsWith('--'));
  assert(options.length > 0);
  for (const option of options) assert.match(stdout, new RegExp(`^ +${option} `, 'm'));
});

test('it may open the devices that the daemon opens, and no others', () => {
  const own = [GNTDEV, GNTALLOC, EVTCHN, XENBUS, PRIVCMD, HYPERCALL, UDMABUF];
  // Whole classes, as cards and heaps have names of their own.
  const classes = ['char-dma_heap', 'char-drm'];
  const allowed = values('DeviceAllow').map((value) => value.replace(/ rw$/, ''));
  assert.deepEqual(allowed.sort(), [...own.map(({ path }) => path), ...classes].sort());
});

test('it is started again for ever, and the guide leads to it', () => {
  assert.deepEqual([values('Restart'), values('StartLimitIntervalSec')], [['always'], ['0']]);
  const guide = readFileSync(join(root, 'docs/guide.md'), 'utf8');
  assert.match(guide, /packaging\/xen-zcopy\.service/);
});
