// What the server does with those who mean it no good: bytes on sockets, as no HTTP client would send them.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import pino from 'pino';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { SERVER_LIMITS, type ServerLimits } from '../../src/server/limits.ts';
import { ViewerServer } from '../../src/server/server.ts';
import { noisyPicture } from '../outputs/pictures.ts';
import { http } from './http-client.ts';
import { answerOn, type RawAnswer, raw, rawConnection, requestFor } from './raw-http.ts';
import { ScriptedView } from './scripted-view.ts';

const runtime = systemRuntime();
const token = 'the-token-that-may-do-all';
const authorization = `Authorization: Bearer ${token}`;

async function serve(context: TestContext, limits: Partial<ServerLimits> = {}) {
  const view = new ScriptedView(runtime);
  const guest = view.addGuest(1, 'paint');
  await view.connect(1);
  const server = await ViewerServer.start(runtime, {
    view,
    host: '127.0.0.1',
    port: 0,
    token,
    limits: { ...SERVER_LIMITS, ...limits },
  });
  context.after(() => server[Symbol.asyncDispose]());
  const { port } = server;
  const metrics = async () =>
    (await http({ port, path: '/metrics', headers: { authorization: `Bearer ${token}` } })).body
      .toString()
      .split('\n')
      .filter((line) => line.startsWith('web_refused_total'));
  return { view, guest, server, port, metrics };
}

function assertSecured({ headers }: RawAnswer, what: string): void {
  const csp = headers.get('content-security-policy') ?? '';
  for (const directive of [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "require-trusted-types-for 'script'",
  ]) {
    assert(csp.split('; ').includes(directive), `${what}: ${directive}`);
  }
  assert.doesNotMatch(csp, /unsafe|\*|data:|https?:/, what);
  for (const [name, value] of [
    ['x-content-type-options', 'nosniff'],
    ['x-frame-options', 'DENY'],
    ['referrer-policy', 'no-referrer'],
    ['cache-control', 'no-store'],
    ['cross-origin-opener-policy', 'same-origin'],
    ['cross-origin-resource-policy', 'same-origin'],
  ] as const) {
    assert.equal(headers.get(name), value, `${what}: ${name}`);
  }
  assert.equal(headers.has('access-control-allow-origin'), false, what);
}

test('every answer has the security headers: pages, facts, refusals, and what the parser refuses by itself', async (context) => {
  const { port } = await serve(context, { headMs: 200, checkMs: 50 });
  const upgrade = ['Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13'];
  const cases: readonly (readonly [string, number, string])[] = [
    ['the page', 200, requestFor('/')],
    ['a script', 200, requestFor('/main.js')],
    ['the status', 200, requestFor('/api/status', authorization)],
    ['no token', 401, requestFor('/api/status')],
    ['nothing there', 404, requestFor('/nothing', authorization)],
    ['not a path', 400, requestFor('*', authorization)],
    [
      'a refused socket',
      401,
      `GET /api/view HTTP/1.1\r\nHost: localhost\r\n${upgrade.join('\r\n')}\r\n\r\n`,
    ],
    ['not HTTP', 400, 'EHLO example\r\n\r\n'],
    ['an endless head', 431, requestFor('/', `X: ${'x'.repeat(20_000)}`)],
    ['a head that does not end', 408, 'GET / HTTP/1.1\r\nHost: localhost\r\n'],
  ];
  for (const [what, status, bytes] of cases) {
    const answer = await raw(port, bytes);
    assert.equal(answer.status, status, what);
    assertSecured(answer, what);
    if (status >= 400) assert.equal(typeof JSON.parse(answer.body).error, 'string', what);
  }
});

test('no path leads out of the page’s files, however it is written', async (context) => {
  const { port } = await serve(context);
  const targets = [
    '/../package.json',
    '/../../../../../../etc/passwd',
    '/%2e%2e/package.json',
    '/%2e%2e%2fpackage.json',
    '/%252e%252e%252fpackage.json',
    '/..%252f..%252fpackage.json',
    '/..%c0%afpackage.json',
    '/..\\..\\package.json',
    '/..%5c..%5cpackage.json',
    '/....//....//package.json',
    '//etc/passwd',
    '///etc/passwd',
    '/etc/passwd',
    '/file:///etc/passwd',
    '/main.js/../../package.json',
    '/web/../../src/server/server.js',
    '/main.js%00',
    '/main.js%00.html',
    '/%00/etc/passwd',
    '/index.html',
    '/.git/config',
    '/api/../../package.json',
    '/api/guests/1/displays/../../../../package.json',
    '/api/guests/1%2fdisplays%2f0.png',
    '/api/guests/1/displays/..%2f0.png',
  ];
  for (const target of targets) {
    const { status, body } = await raw(port, requestFor(target, authorization));
    assert.equal(status, 404, target);
    assert.doesNotMatch(body, /root:|dependencies|"version"/, target);
  }
  for (const target of [
    '*',
    'http://[',
    'main.js',
    '../main.js',
    'file:///etc/passwd',
    '\\etc\\passwd',
  ]) {
    const { status } = await raw(port, requestFor(target, authorization));
    assert.equal(status, 400, target);
  }
  // A raw NUL is no HTTP at all.
  assert.equal((await raw(port, requestFor('/main.js\0', authorization))).status, 400);
});

test('a host name that is not ours is refused also when it is written in ways that clients do not', async (context) => {
  const { port, metrics } = await serve(context);
  const statusFor = async (...lines: string[]) =>
    (await raw(port, `GET / HTTP/1.1\r\n${[...lines, 'Connection: close'].join('\r\n')}\r\n\r\n`))
      .status;
  assert.equal(await statusFor('Host: 127.0.0.1'), 200);
  for (const name of [
    'evil.example',
    '127.0.0.1.evil.example',
    'evil.example:8470',
    'localhost.',
  ]) {
    assert.equal(await statusFor(`Host: ${name}`), 403, name);
  }
  for (const name of ['', '127.0.0.1@evil.example', '127.0.0.1:80:80', '[::1', '127.0.0.1/evil']) {
    const status = await statusFor(`Host: ${name}`);
    assert(status === 400 || status === 403, `${name}: ${status}`);
  }
  assert.equal(await statusFor(), 400, 'no Host');
  assert.equal(
    (await raw(port, 'GET / HTTP/1.0\r\n\r\n')).status,
    400,
    'no Host, as HTTP/1.0 allows',
  );
  const absolute = await raw(port, requestFor('http://evil.example/', authorization));
  assert.equal(absolute.status, 400, 'a target that names another host');
  const counted = (await metrics()).find((line) => line.includes('foreign-host'));
  assert.match(String(counted), / ([4-9]|1\d)$/);
});

test('heads, targets and bodies have limits', async (context) => {
  const { port, guest, metrics } = await serve(context);
  const statusOf = async (bytes: string) => (await raw(port, bytes)).status;
  assert.equal(await statusOf(requestFor(`/?${'x'.repeat(2000)}`)), 200);
  assert.equal(await statusOf(requestFor(`/?${'x'.repeat(2100)}`)), 414);
  assert.equal(await statusOf(requestFor(`/?${'x'.repeat(10_000)}`)), 431);
  assert.equal(await statusOf(requestFor('/', `X: ${'x'.repeat(9000)}`)), 431);
  assert.equal(
    await statusOf(requestFor('/', ...Array(500).fill('X-Many: and each of them short'))),
    431,
  );
  const post = (length: string, body: string) =>
    statusOf(
      `POST /api/guests/1/input HTTP/1.1\r\nHost: localhost\r\n${authorization}\r\n` +
        `Content-Type: application/json\r\n${length}\r\nConnection: close\r\n\r\n${body}`,
    );
  assert.equal(await post('Content-Length: 2', '[]'), 200);
  assert.equal(await post('Content-Length: 131073', ''), 413, 'announced');
  assert.equal(await post('Content-Length: 9007199254740993', ''), 413, 'announced, and odd');
  assert.equal(await post('Content-Length: 99999999999999999999', ''), 400, 'no number');
  const chunk = `4000\r\n${' '.repeat(0x4000)}\r\n`;
  assert.equal(await post('Transfer-Encoding: chunked', chunk.repeat(9)), 413, 'in chunks');
  assert.equal(
    await post('Content-Length: 2\r\nTransfer-Encoding: chunked', '0\r\n\r\n'),
    400,
    'smuggling',
  );
  assert.equal(await post('Content-Length: -1', ''), 400);
  assert.deepEqual(guest.input.events, []);
  assert((await metrics()).some((line) => line.includes('oversized')));
});

test('who is slow loses the connection: a head, a body, or nothing at all', async (context) => {
  const { port, guest } = await serve(context, {
    headMs: 200,
    requestMs: 400,
    idleMs: 100,
    checkMs: 50,
  });
  const silent = await rawConnection(port);
  assert.equal((await answerOn(silent)).status, 408, 'nothing at all');

  const drip = await rawConnection(port);
  drip.write('GET / HTTP/1.1\r\nHost: localhost\r\n');
  const dripping = setInterval(() => drip.write('X-More: and more\r\n'), 20);
  context.after(() => clearInterval(dripping));
  assert.equal((await answerOn(drip)).status, 408, 'a head, line by line');
  clearInterval(dripping);

  const body = await rawConnection(port);
  body.write(
    `POST /api/guests/1/input HTTP/1.1\r\nHost: localhost\r\n${authorization}\r\n` +
      'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n[',
  );
  const spaces = setInterval(() => body.write(' '), 20);
  context.after(() => clearInterval(spaces));
  assert.equal((await answerOn(body)).status, 408, 'a body, byte by byte');
  clearInterval(spaces);

  const idle = await rawConnection(port);
  idle.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
  assert.equal((await answerOn(idle)).status, 200, 'an answer, and then the end of the connection');
  assert.deepEqual(guest.input.events, []);
});

test('there are so many connections at a time and no more, and room again when some are gone', async (context) => {
  const { port } = await serve(context, { connections: 4 });
  const held = await Promise.all([1, 2, 3, 4].map(() => rawConnection(port)));
  assert.equal((await raw(port, requestFor('/'))).status, 0, 'a fifth is closed without an answer');
  for (const socket of held) socket.destroy();
  await until(runtime, async () => (await raw(port, requestFor('/'))).status === 200, {
    what: 'room again',
  });
});

test('pictures are made one at a time, and who asks for too many at once is told so', async (context) => {
  const { port, view } = await serve(context);
  [...view.output.screens][0]!.show(noisyPicture(1, { width: 800, height: 600 }));
  const path = '/api/guests/1/displays/0.png';
  const answers = await Promise.all(
    Array.from({ length: 40 }, () =>
      http({ port, path, headers: { authorization: `Bearer ${token}` } }),
    ),
  );
  const refused = answers.filter(({ status }) => status === 503);
  assert(refused.length > 0 && refused.length < 40, `${refused.length} of 40 were refused`);
  assert(answers.every(({ status }) => status === 200 || status === 503));
  assert(refused.every(({ headers }) => headers['retry-after'] === '1'));
  const later = await http({ port, path, headers: { authorization: `Bearer ${token}` } });
  assert.equal(later.status, 200);
});

test('tokens are in no answer and in no message of the log', async (context) => {
  const lines: string[] = [];
  const log = pino({ level: 'trace' }, { write: (line: string) => void lines.push(line) });
  const logging = systemRuntime(log);
  const view = new ScriptedView(logging);
  view.addGuest(1, 'paint');
  view.status = () => {
    throw new Error('a defect');
  };
  const server = await ViewerServer.start(logging, { view, host: '127.0.0.1', port: 0, token });
  context.after(() => server[Symbol.asyncDispose]());
  const { port } = server;
  const targets = ['/api/status', '/nothing', '/api/view', '/main.js', '*'];
  for (const target of targets) {
    for (const given of [token, 'a-wrong-token-of-some-length']) {
      const query = target === '*' ? target : `${target}?token=${given}`;
      const { body } = await raw(port, requestFor(query, `Origin: http://${given}.example`));
      assert(!body.includes(given), target);
    }
  }
  await raw(port, requestFor(`/?token=${token}`, `X: ${'x'.repeat(9000)}`));
  await raw(port, `GET /?token=${token} HTTP/9.9\r\n\r\n`);
  assert(
    lines.some((line) => line.includes('a defect')),
    'the log is the one that is looked into',
  );
  for (const line of lines) assert.doesNotMatch(line, /the-token-that|a-wrong-token/);
});
