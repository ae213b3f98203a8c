// What `share` is told and what it says, without a machine: options, policies, the progress line.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parsePicture, parseSeconds, parseSize } from '../../src/cli/share/arguments.ts';
import { parseDomainRef } from '../../src/cli/share/domain-refs.ts';
import { fromRules } from '../../src/cli/share/policy-file.ts';
import { Progress, progressText } from '../../src/cli/share/progress.ts';
import { UsageError } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { DEFAULT_RULE } from '../../src/share/policy.ts';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

function run(...args: string[]) {
  return spawnSync(process.execPath, [main, 'share', ...args], { encoding: 'utf8' });
}

test('what is typed wrongly: one line that says so, exit 2, before anything is started', () => {
  const machine = ['--machine', '/does/not/exist', '--as', 'bob'];
  for (const args of [
    ['frobnicate'],
    ['export', ...machine],
    ['export', '--to', 'any'],
    ['export', '--to', '70000'],
    ['export', '--to', 'x', '--machine', '/tmp/m'],
    ['export', '--to', 'x', '--as', 'bob'],
    ['export', '--to', 'x', ...machine, '/does/not/exist'],
    ['export', '--to', 'x', ...machine, '/tmp'],
    ['export', '--to', 'x', '--slots', '65'],
    ['export', '--to', 'x', '--slot-size', 'big'],
    ['export', '--to', 'x', '--name', 'x'.repeat(81)],
    ['export', '--to', 'x', '--picture', 'XR24'],
    ['export', '--to', 'x', '--picture', 'ZZZZ:10x10'],
    ['export', '--to', 'x', '--picture', 'XR24:10x10', '--loop'],
    ['export', '--to', 'x', '--test-card', '10x10', '--buffer'],
    ['export', '--to', 'x', '--once'],
    ['export', '--to', 'x', '--buffer', '/dev/null'],
    ['export', '--to', 'x', '--when-full', 'explode'],
    ['import', ...machine],
    ['import', '--from', 'x', 'no-id'],
    ['import', '--from', 'x', '--frames', '0'],
    ['import', '--from', 'x', '--policy', '/does/not/exist'],
    ['import', '--from', 'x', '--output', '/does/not/exist/file'],
    ['list'],
    ['watch', '--from', ''],
    ['view', '--from', 'x', '--listen', 'nonsense'],
  ]) {
    const { status, stdout, stderr } = run(...args);
    assert.equal(status, 2, `${args.join(' ')}: ${stderr}`);
    assert.equal(stdout, '');
    assert.match(stderr, /^xen-zcopy: [^\n]+\n(\(--help says more\)\n)?$/, args.join(' '));
  }
});

test('without a machine, or without Xen: one line with what to do, exit 1', () => {
  const absent = run('list', '--machine', '/does/not/exist', '--as', 'x', '--from', 'y');
  assert.equal(absent.status, 1);
  assert.match(absent.stderr, /^xen-zcopy: [^\n]*\/does\/not\/exist[^\n]*demo --machine[^\n]*\n$/);
  const { status, stderr } = run('list', '--from', 'any');
  assert.equal(status, 1);
  assert.match(stderr, /^xen-zcopy: [^\n]+\n$/);
});

test('every subcommand has help with an example', () => {
  assert.match(run('--help').stdout, /xen-zcopy share export --to dom0/);
  for (const verb of ['export', 'import', 'list', 'watch', 'view']) {
    const { status, stdout } = run(verb, '--help');
    assert.equal(status, 0);
    assert.match(stdout, new RegExp(`Usage: xen-zcopy share ${verb}`));
    assert.match(stdout, new RegExp(`Examples?:\\n.*xen-zcopy share ${verb}`, 's'));
  }
});

test('sizes, times, pictures and domains as people write them', () => {
  const sizes = ['4096', '64K', '1M', '1MiB', '2g'].map((text) => parseSize(text, '--slot-size'));
  assert.deepEqual(sizes, [4096, 65_536, 2 ** 20, 2 ** 20, 2 ** 31]);
  assert.equal(parseSeconds('0.5', '--timeout'), 500);
  const { format, width, height, rateHz } = parsePicture('RG16:640x480@59.94', '--picture');
  assert.deepEqual([format.name, width, height, rateHz], ['RGB565', 640, 480, 59.94]);
  assert.throws(() => parsePicture('YUYV:641x480', '--picture'), UsageError);
  const domains = ['dom0', 'Domain-0', '0'].map((text) => parseDomainRef(text, '--to'));
  assert(domains.every((ref) => ref.kind === 'number' && ref.domid === 0));
  assert.equal(parseDomainRef('any', '--from').kind, 'any');
  assert.deepEqual(parseDomainRef('bob', '--to'), { kind: 'name', text: 'bob' });
});

test('a policy file says from whom and how much; --from picks from it', () => {
  const directory = mkdtempSync(join(tmpdir(), 'xen-zcopy-policy-'));
  const policy = join(directory, 'policy.json');
  try {
    const accept = [
      { from: 3, maxMiB: 1.5, kinds: ['stream'] },
      { from: 'bob', maxShares: 2 },
    ];
    writeFileSync(policy, JSON.stringify({ accept }));
    const [three, bob] = fromRules({ policy });
    assert.deepEqual(three!.rule, { ...DEFAULT_RULE, maxBytes: 1.5 * 2 ** 20, kinds: ['stream'] });
    assert.deepEqual(bob!.from, { kind: 'name', text: 'bob' });
    assert.equal(fromRules({ policy, from: ['bob'] })[0]!.rule.maxShares, 2);
    assert.throws(() => fromRules({ policy, from: ['eve'] }), /accepts nothing from eve/);
    writeFileSync(policy, JSON.stringify({ accept: [{ from: 3, maxMib: 1 }] }));
    assert.throws(() => fromRules({ policy }), /^UsageError: --policy .*: accept\.0: /);
    writeFileSync(policy, '{');
    assert.throws(() => fromRules({ policy }), /is not JSON/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('the progress line: bytes, rate, and percent where the end is known', () => {
  assert.equal(
    progressText({ bytes: 12_345_678, totalBytes: 100_000_000, elapsedMs: 2000 }),
    '12.3 of 100.0 MB  12 %  6.2 MB/s',
  );
  const open = { bytes: 5e9, totalBytes: undefined, elapsedMs: 1000 };
  assert.equal(progressText(open), '5000.0 MB  5000.0 MB/s');
});

test('progress is shown on a terminal, after two seconds, and is gone at the end', async () => {
  const texts: string[] = [];
  const write = (text: string) => texts.push(text);
  const pass = async (runtime: VirtualRuntime, delayMs: number) => {
    let over = false;
    runtime.after(delayMs, () => {
      over = true;
    });
    await runtime.runUntil(() => over, { what: 'time passes' });
  };
  for (const { isTTY, quiet, shown } of [
    { isTTY: true, quiet: false, shown: true },
    { isTTY: true, quiet: true, shown: false },
    { isTTY: false, quiet: false, shown: false },
  ]) {
    texts.length = 0;
    const runtime = new VirtualRuntime(1);
    const progress = new Progress(runtime, { terminal: { isTTY, write }, totalBytes: 10, quiet });
    progress.bytes = 5;
    await pass(runtime, 1900);
    assert.deepEqual(texts, []);
    await pass(runtime, 200);
    assert.equal(texts.length > 0, shown);
    if (shown) assert.match(texts[0]!, /0\.0 of 0\.0 MB {2}50 %/);
    progress[Symbol.dispose]();
    if (shown) assert.equal(texts.at(-1), '\r\x1b[K');
  }
});
