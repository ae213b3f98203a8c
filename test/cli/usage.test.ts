// The command line as a person meets it: a process of its own, its exit code and its one line.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

function run(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH },
  });
  return { status, stdout, stderr };
}

test('what is typed wrongly: one line that says so, exit 2', () => {
  for (const args of [
    ['frobnicate'],
    ['demo', '--no-such-option'],
    ['demo', '--guests', 'many'],
    ['demo', '--guests', '0'],
    ['demo', '--listen', 'nonsense'],
    ['demo', '--log-level', 'loud'],
    ['serve', '--config', '/does/not/exist'],
    ['status', '--url', 'not a url'],
    ['status'],
    ['lab', '--port', 'x'],
  ]) {
    const { status, stdout, stderr } = run(...args);
    assert.equal(status, 2, `${args.join(' ')}: ${stderr}`);
    assert.equal(stdout, '');
    assert.match(stderr, /^xen-zcopy: [^\n]+\n(\(--help says more\)\n)?$/, args.join(' '));
  }
});

test('serve on a machine without Xen says so and points at demo and lab, exit 1', () => {
  const { status, stderr } = run('serve', '--listen', '127.0.0.1:0');
  assert.equal(status, 1);
  assert.match(stderr, /^xen-zcopy: [^\n]*does not run on Xen[^\n]*demo[^\n]*lab[^\n]*\n$/i);
});

test('doctor on a machine without Xen says so in one line and lists what there is, exit 1', () => {
  const { status, stdout, stderr } = run('doctor');
  assert.equal(status, 1);
  assert.match(stderr, /^xen-zcopy: [^\n]*does not run on Xen[^\n]*demo[^\n]*\n$/);
  for (const name of ['event-channels', 'export-refs', 'udmabuf', 'observe-grants', 'kms']) {
    assert.match(stdout, new RegExp(`^ {2}${name} +(yes|no ) {2}\\S`, 'm'));
  }
  const json = run('doctor', '--json');
  assert.equal(json.status, 1);
  const { xen, servable, paths, summary } = JSON.parse(json.stdout);
  assert.deepEqual([xen, servable, summary.length], [false, false, 2]);
  assert.match(paths['map-grants'].remedy, /modprobe xen-gntdev/);
});

test('status of a daemon that is not there names the address and the remedy, exit 1', () => {
  const { status, stderr } = run('status', '--url', 'http://127.0.0.1:9/?token=0123456789abcdef');
  assert.equal(status, 1);
  assert.match(stderr, /^xen-zcopy: [^\n]*127\.0\.0\.1:9[^\n]*xen-zcopy serve[^\n]*\n$/);
});

test('every command has help that teaches', () => {
  for (const command of ['demo', 'serve', 'lab', 'share', 'status', 'doctor', 'abi']) {
    const { status, stdout } = run(command, '--help');
    assert.equal(status, 0);
    assert.match(stdout, new RegExp(`Usage: xen-zcopy ${command}`));
  }
});

test('abi --json prints structs and constants under their C names', () => {
  const { status, stdout } = run('abi', '--json');
  assert.equal(status, 0);
  const { structs, constants } = JSON.parse(stdout);
  assert.deepEqual(structs.xendispl_dbuf_create_req.fields.dbuf_cookie, { offset: 0, size: 8 });
  assert.equal(constants.IOCTL_GNTDEV_MAP_GRANT_REF, 0x0018_4700);
  assert.equal(constants.XS_WATCH_EVENT, 15);
});
