import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseListen, parseOutput, serviceConfig } from '../../src/cli/config.ts';
import { readToken } from '../../src/cli/tokens.ts';
import { UsageError } from '../../src/runtime/errors.ts';
import { SeededRandom } from '../../src/runtime/random.ts';
import { DEFAULT_BUDGET, HELD_KINDS, RATE_KINDS } from '../../src/zcopy/budget.ts';

const defaults = { random: new SeededRandom(1), logLevel: 'warn' } as const;
const folder = mkdtempSync(join(tmpdir(), 'xen-zcopy-config-'));

function file(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

/** The message of the usage error that `act` must throw. */
function complaint(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    assert(error instanceof UsageError, `not a usage error: ${error}`);
    assert(!error.message.includes('\n'), 'one line');
    return error.message;
  }
  throw new Error('accepted');
}

test('addresses: names, IPv4, IPv6 in brackets, ports up to 65535', () => {
  assert.deepEqual(parseListen('localhost:0'), { host: 'localhost', port: 0 });
  assert.deepEqual(parseListen('0.0.0.0:65535'), { host: '0.0.0.0', port: 65_535 });
  assert.deepEqual(parseListen('[::1]:80'), { host: '::1', port: 80 });
  for (const bad of [
    '',
    '8470',
    'host',
    'host:',
    ':80',
    'host:65536',
    'host:-1',
    '::1:80',
    'a b:1',
  ]) {
    assert.match(
      complaint(() => parseListen(bad)),
      /HOST:PORT/,
    );
  }
});

test('defaults, and the command line wins over the file', () => {
  const config = file(
    'good.json',
    '{"listen": "[::1]:1", "budget": {"buffers": 7}, "refreshHz": 30}',
  );
  const fromFile = serviceConfig({ config }, defaults);
  assert.deepEqual(fromFile.listen, { host: '::1', port: 1 });
  assert.deepEqual(fromFile.budget, { ...DEFAULT_BUDGET, buffers: 7 });
  assert.equal(fromFile.refreshHz, 30);
  assert.equal(serviceConfig({ config, listen: 'h:2' }, defaults).listen.host, 'h');
  assert.equal(serviceConfig({}, defaults).listen.port, 8470);
  assert.equal(serviceConfig({}, defaults).logLevel, 'warn');
});

test('budgets: all kinds, for all guests and for single ones by name', () => {
  const kinds = [...HELD_KINDS, ...RATE_KINDS];
  const all = Object.fromEntries(kinds.map((kind, index) => [kind, index + 1]));
  const content = {
    budget: all,
    guests: { 'dom-u': { budget: { pages: 5, requestsPerSecond: 9 } } },
  };
  const config = file('budgets.json', JSON.stringify(content));
  const { budget, guestBudgets } = serviceConfig({ config }, defaults);
  assert.deepEqual(budget, all);
  assert.deepEqual(guestBudgets.get('dom-u'), { ...all, pages: 5, requestsPerSecond: 9 });
  assert.equal(guestBudgets.get('another'), undefined);
  const none = file('no-pages.json', '{"budget": {"pages": 0}}');
  assert.equal(serviceConfig({ config: none }, defaults).budget.pages, 0);
  assert.equal(serviceConfig({}, defaults).guestBudgets.size, 0);
});

test('a wrong file is one line that names the place', () => {
  const complaintOf = (content: string) =>
    complaint(() => serviceConfig({ config: file('bad.json', content) }, defaults));
  assert.match(complaintOf('{'), /not JSON/);
  assert.match(complaintOf('{"refreshHz": 0}'), /refreshHz/);
  assert.match(complaintOf('{"budget": {"pages": -1}}'), /budget\.pages/);
  assert.match(complaintOf('{"budget": {"page": 1}}'), /budget.*page/);
  assert.match(complaintOf('{"budget": {"requestsPerSecond": 0}}'), /budget\.requestsPerSecond/);
  assert.match(complaintOf('{"guests": {"a": {"budget": {"bytes": 1.5}}}}'), /guests\.a\.budget/);
  assert.match(complaintOf('{"guests": {"a": {"pages": 1}}}'), /guests\.a/);
  assert.match(complaintOf('{"lisen": "x"}'), /lisen/);
  assert.match(
    complaint(() => serviceConfig({ config: `${folder}/none` }, defaults)),
    /cannot be read/,
  );
});

test('tokens: from a file, never weak, random otherwise', () => {
  assert.equal(readToken(file('token', 'a-token-of-enough-length\n')), 'a-token-of-enough-length');
  assert.match(
    complaint(() => readToken(file('short', 'short\n'))),
    /at least 16/,
  );
  assert.match(
    complaint(() => readToken(file('control', `${'x'.repeat(20)}\u0007`))),
    /printable/,
  );
  const tokens = [serviceConfig({}, defaults).token, serviceConfig({}, defaults).token];
  assert.notEqual(tokens[0], tokens[1]);
  assert(tokens[0]!.length >= 32);
});

test('limited tokens: each from a file beside the configuration, with its guests', () => {
  file('paint.token', 'token-for-the-guest-paint\n');
  file('wall.token', 'token-for-the-wall-display\n');
  const config = file(
    'tokens.json',
    JSON.stringify({
      tokens: [
        { tokenFile: 'paint.token', guests: ['paint', 3] },
        { tokenFile: `${folder}/wall.token`, viewOnly: true },
      ],
    }),
  );
  assert.deepEqual(serviceConfig({ config }, defaults).limitedTokens, [
    { token: 'token-for-the-guest-paint', guests: ['paint', 3], viewOnly: false },
    { token: 'token-for-the-wall-display', viewOnly: true },
  ]);
  assert.deepEqual(serviceConfig({}, defaults).limitedTokens, []);
});

test('a rule for a token that is weak, missing, there twice or unclear is refused, and no token is told', () => {
  file('weak.token', 'short');
  const main = file('main.token', 'token-for-the-guest-paint');
  const complaintOf = (...tokens: object[]) =>
    complaint(() =>
      serviceConfig(
        { tokenFile: main, config: file('t.json', JSON.stringify({ tokens })) },
        defaults,
      ),
    );
  assert.match(complaintOf({ tokenFile: 'weak.token' }), /weak\.token.*at least 16/);
  assert.match(complaintOf({ tokenFile: 'none.token' }), /none\.token cannot be read/);
  assert.match(complaintOf({ tokenFile: 'wall.token', guests: ['3'] }), /number without quotes/);
  assert.match(complaintOf({ tokenFile: 'wall.token', guests: [-1] }), /guests/);
  assert.match(complaintOf({ token: 'in-the-configuration' }), /tokens\.0/);
  assert.match(complaintOf({ tokenFile: 'wall.token', viewonly: true }), /viewonly/);
  for (const tokens of [
    [{ tokenFile: 'paint.token' }],
    [{ tokenFile: 'wall.token' }, { tokenFile: 'wall.token', viewOnly: true }],
  ]) {
    const text = complaintOf(...tokens);
    assert.match(text, /another rule has the same token/);
    assert.doesNotMatch(text, /token-for-the/);
  }
});

test('outputs: the browser, or a card by its short name or its path', () => {
  assert.deepEqual(parseOutput('browser'), { kind: 'browser' });
  for (const text of ['kms:card0', 'kms:/dev/dri/card0']) {
    assert.deepEqual(parseOutput(text, { 'screen-1': 'HDMI-A-1' }), {
      kind: 'kms',
      path: '/dev/dri/card0',
      connectors: new Map([['screen-1', 'HDMI-A-1']]),
    });
  }
  for (const bad of ['', 'kms', 'kms:', 'kms:card', 'kms:/etc/passwd', 'kms:../card0', 'null']) {
    assert.match(
      complaint(() => parseOutput(bad)),
      /kms:card0/,
    );
  }
  const twice = { a: 'HDMI-A-1', b: 'HDMI-A-1' };
  assert.match(
    complaint(() => parseOutput('kms:card0', twice)),
    /HDMI-A-1 is given to more than one display/,
  );
  const config = file('kms.json', '{"output": "kms:card1", "kms": {"s": "DP-1"}}');
  assert.equal(serviceConfig({ config }, defaults).output.kind, 'kms');
  assert.equal(serviceConfig({ config, output: 'browser' }, defaults).output.kind, 'browser');
});
