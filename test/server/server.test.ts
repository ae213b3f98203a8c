import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { PNG } from 'pngjs';
import { SysError } from '../../src/runtime/errors.ts';
import { SystemRandom } from '../../src/runtime/random.ts';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { newToken } from '../../src/server/access.ts';
import { ViewerServer } from '../../src/server/server.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { noisyPicture } from '../outputs/pictures.ts';
import { http } from './http-client.ts';
import { ScriptedView } from './scripted-view.ts';

const token = newToken(new SystemRandom());
const bearer = { authorization: `Bearer ${token}` };
const json = { ...bearer, 'content-type': 'application/json' };

/** A running server with one guest, 1, on one screen; gone after the test. */
async function serve(context: TestContext) {
  const runtime = systemRuntime();
  const view = new ScriptedView(runtime);
  const guest = view.addGuest(1, 'paint');
  const screen = await view.connect(1);
  const server = await ViewerServer.start(runtime, { view, host: '127.0.0.1', port: 0, token });
  context.after(() => server[Symbol.asyncDispose]());
  const { port } = server;
  const get = (path: string, headers: Record<string, string> = bearer) =>
    http({ port, path, headers });
  const post = (path: string, body: string, headers: Record<string, string> = json) =>
    http({ port, path, body, headers });
  return { view, guest, screen, server, port, get, post };
}

function errorOf(answer: { json: () => unknown }): string {
  const { error } = answer.json() as { error: string };
  assert.equal(typeof error, 'string');
  assert(!error.includes('\n'));
  return error;
}

test('the page needs no token, everything else does', async (context) => {
  const { get } = await serve(context);
  for (const [path, type] of [
    ['/', 'text/html'],
    ['/main.js', 'text/javascript'],
    ['/style.css', 'text/css'],
    ['/icon.svg', 'image/svg+xml'],
  ] as const) {
    const answer = await get(path, {});
    assert.equal(answer.status, 200, path);
    assert(String(answer.headers['content-type']).startsWith(type));
    assert(answer.body.length > 0);
  }
  for (const path of ['/api/status', '/metrics', '/api/guests/1/displays/0.png', '/nothing']) {
    const without = await get(path, {});
    assert.equal(without.status, 401, path);
    assert.equal(without.headers['www-authenticate'], 'Bearer');
    assert.match(errorOf(without), /token is needed/);
    for (const wrong of ['x', `${token}x`, token.slice(1), '%00']) {
      const refused = await get(path, { authorization: `Bearer ${wrong}` });
      assert.equal(refused.status, 401);
      assert(!refused.body.includes(token));
    }
    assert.equal((await get(`${path}?token=wrong`, {})).status, 401);
  }
  assert.equal((await get(`/api/status?token=${token}`, {})).status, 200);
  assert.equal((await get('/api/status')).status, 200);
});

test('a name that is not ours is refused (DNS rebinding), the page included', async (context) => {
  const { get, port } = await serve(context);
  for (const path of ['/', '/api/status']) {
    for (const host of [
      'evil.example',
      `evil.example:${port}`,
      '127.0.0.1.evil.example',
      'a@b',
      '::1',
    ]) {
      const { status } = await get(path, { ...bearer, host });
      assert([400, 403].includes(status), `${host}: ${status}`);
    }
    for (const host of ['localhost', `localhost:${port}`, 'LOCALHOST:1', '127.0.0.1', '[::1]:9']) {
      assert.equal((await get(path, { ...bearer, host })).status, 200, host);
    }
  }
});

test('names that were allowed are answered, and any address when listening on all of them', async (context) => {
  const runtime = systemRuntime();
  const view = new ScriptedView(runtime);
  const allowedHosts = ['Screens.example'];
  const options = { view, host: '0.0.0.0', port: 0, token, allowedHosts };
  const server = await ViewerServer.start(runtime, options);
  context.after(() => server[Symbol.asyncDispose]());
  const statusFor = async (host: string) =>
    (await http({ port: server.port, path: '/api/status', headers: { ...bearer, host } })).status;
  assert.equal(await statusFor('screens.example'), 200);
  assert.equal(await statusFor('192.0.2.7:80'), 200);
  assert.equal(await statusFor('[2001:db8::1]'), 200);
  assert.equal(await statusFor('other.example'), 403);
});

test('status is what the daemon says, and what the token allows', async (context) => {
  const { get, view } = await serve(context);
  const answer = await get('/api/status');
  const access = { limited: false, viewOnly: false };
  assert.deepEqual(answer.json(), JSON.parse(JSON.stringify({ ...view.status(), access })));
});

test('a picture is exactly what is on the screen; a blank screen, a missing one and a missing guest are told apart', async (context) => {
  const { get, screen } = await serve(context);
  assert.equal((await get('/api/guests/1/displays/0.png')).status, 409);
  const picture = noisyPicture(3, { width: 33, height: 17 });
  screen.show(picture);
  const { status, headers, body } = await get('/api/guests/1/displays/0.png');
  assert.equal(status, 200);
  assert.equal(headers['content-type'], 'image/png');
  const png = PNG.sync.read(body);
  assert.deepEqual([png.width, png.height], [33, 17]);
  const [b, g, r] = picture.bytes;
  assert.deepEqual([...png.data.subarray(0, 4)], [r, g, b, 255]);
  for (const path of ['/api/guests/1/displays/1.png', '/api/guests/2/displays/0.png']) {
    assert.equal((await get(path)).status, 404);
  }
  assert.equal((await get('/api/guests/99999/displays/0.png')).status, 404);
  assert.equal((await get('/api/guests/-1/displays/0.png')).status, 404);
});

test('input reaches the guest in order', async (context) => {
  const { post, guest } = await serve(context);
  const events = [
    { type: 'key', code: 30, pressed: true },
    { type: 'key', code: 30, pressed: false },
    { type: 'motion', dx: -3, dy: 4 },
    { type: 'position', x: 639, y: 479 },
    { type: 'wheel', delta: -1 },
    { type: 'touch', contact: 1, phase: 'down', x: 5, y: 6 },
  ];
  const answer = await post('/api/guests/1/input', JSON.stringify(events));
  assert.equal(answer.status, 200);
  assert.deepEqual(answer.json(), { sent: 6 });
  assert.deepEqual(guest.input.events, [
    'key 30 down',
    'key 30 up',
    'motion -3 4',
    'position 639 479',
    'wheel -1',
    'touch 1 down 5 6',
  ]);
});

test('input with anything wrong in it is refused whole, with the reason', async (context) => {
  const { post, guest } = await serve(context);
  const good = { type: 'key', code: 30, pressed: true };
  const wrong: [unknown, RegExp][] = [
    [{ type: 'key', code: 30, pressed: true }, /array/],
    [[good, { type: 'key', code: 0, pressed: true }], /^\[1\]\.code/],
    [[good, { type: 'key', code: 768, pressed: true }], /code/],
    [[good, { type: 'key', code: 1.5, pressed: true }], /code/],
    [[good, { type: 'key', code: '30', pressed: true }], /code/],
    [[good, { type: 'key', code: 30 }], /pressed/],
    [[good, { type: 'key', code: 30, pressed: true, more: 1 }], /more/],
    [[good, { type: 'motion', dx: 1e9, dy: 0 }], /dx/],
    [[good, { type: 'position', x: -1, y: 0 }], /x/],
    [[good, { type: 'position', x: 640, y: 0 }], /640x480/],
    [[good, { type: 'touch', contact: 0, phase: 'up', x: 0, y: 480 }], /640x480/],
    [[good, { type: 'touch', contact: 99, phase: 'up', x: 0, y: 0 }], /contact/],
    [[good, { type: 'dance' }], /type/],
    [[good, null], /\[1\]/],
    [Array(1025).fill(good), /1024/],
  ];
  for (const [body, reason] of wrong) {
    const answer = await post('/api/guests/1/input', JSON.stringify(body));
    assert.equal(answer.status, 400, JSON.stringify(body).slice(0, 80));
    assert.match(errorOf(answer), reason);
  }
  for (const body of ['', '{', '[1,', '\u0000', '[NaN]']) {
    const answer = await post('/api/guests/1/input', body);
    assert.equal(answer.status, 400);
    assert.match(errorOf(answer), /not JSON/);
  }
  assert.deepEqual(guest.input.events, []);
});

test('input for nobody, or for drivers that are not connected, says so', async (context) => {
  const { post, guest } = await serve(context);
  assert.equal((await post('/api/guests/2/input', '[]')).status, 404);
  guest.input.state = 'waiting';
  const answer = await post('/api/guests/1/input', '[]');
  assert.equal(answer.status, 409);
  assert.match(errorOf(answer), /waiting/);
});

test('a body must be JSON by its type, and not too long', async (context) => {
  const { post, port, guest } = await serve(context);
  const path = '/api/guests/1/input';
  assert.equal((await post(path, '[]', bearer)).status, 415);
  assert.equal((await post(path, '[]', { ...bearer, 'content-type': 'text/plain' })).status, 415);
  const long = ' '.repeat(200 * 1024);
  assert.equal((await post(path, long)).status, 413);
  const chunked = { ...json, 'transfer-encoding': 'chunked' };
  assert.equal((await http({ port, path, body: long, headers: chunked })).status, 413);
  const announced = { ...json, 'content-length': '9999999999' };
  assert.equal((await http({ port, path, body: '[]', headers: announced })).status, 413);
  assert.deepEqual(guest.input.events, []);
});

test('a POST from another site’s page is refused', async (context) => {
  const { post, port } = await serve(context);
  const path = '/api/guests/1/input';
  for (const origin of [
    'http://evil.example',
    'null',
    `http://127.0.0.1:${port + 1}`,
    'nonsense',
  ]) {
    assert.equal((await post(path, '[]', { ...json, origin })).status, 403, origin);
  }
  assert.equal(
    (await post(path, '[]', { ...json, origin: `http://127.0.0.1:${port}` })).status,
    200,
  );
});

test('methods that a path does not have are named', async (context) => {
  const { port, get, post } = await serve(context);
  const answer = await post('/api/status', '{}');
  assert.equal(answer.status, 405);
  assert.equal(answer.headers.allow, 'GET');
  assert.equal((await post('/', '{}')).status, 405);
  assert.equal((await get('/api/guests/1/input')).headers.allow, 'POST');
  const head = await http({ port, path: '/api/status', method: 'HEAD', headers: bearer });
  assert.equal(head.status, 200);
  assert.equal(head.body.length, 0);
});

test('guests are controlled only where the host offers it', async (context) => {
  const { post, view } = await serve(context);
  const path = '/api/guests/1/control';
  assert.equal((await post(path, '{"action":"stop"}')).status, 404);
  view.offerControls();
  assert.equal((await post(path, '{"action":"dance"}')).status, 400);
  assert.equal((await post('/api/guests/9/control', '{"action":"stop"}')).status, 404);
  assert.deepEqual((await post(path, '{"action":"crash"}')).json(), { done: 'crash' });
  assert.equal((await post(path, '{"action":"stop"}')).status, 409);
  assert.deepEqual((await post(path, '{"action":"restart"}')).json(), { done: 'restart' });
  assert.deepEqual(view.acts, ['crash 1', 'restart 1']);
});

test('metrics are Prometheus text with what each guest holds and what was copied', async (context) => {
  const { get, screen, guest } = await serve(context);
  screen.show(noisyPicture(1, { width: 10, height: 10 }));
  await get('/api/guests/1/displays/0.png');
  guest.refused['over-budget-pages'] = 3;
  const states = { backendState: 'XenbusStateConnected', frontendState: 'XenbusStateConnected' };
  guest.services = [{ type: 'vdispl', devid: 0, ...states, restarts: 2, lastError: 'a defect' }];
  guest.throttled.requestsPerSecond = 5;
  const { headers, body } = await get('/metrics');
  assert.match(String(headers['content-type']), /^text\/plain/);
  const lines = body.toString().split('\n');
  for (const line of [
    'bytes_copied_total{domid="1",connector="0",path="browser"} 300',
    'flips_total{domid="1",connector="0",path="browser"} 0',
    'guest_held{domid="1",kind="pages"} 2025',
    'guest_held{domid="1",kind="quarantinedPages"} 0',
    'guest_refused_total{domid="1",reason="over-budget-pages"} 3',
    'guest_restarts_total{domid="1",device="vdispl/0"} 2',
    'guest_throttled_total{domid="1",kind="requestsPerSecond"} 5',
    `guest_budget{domid="1",kind="pages"} ${DEFAULT_BUDGET.pages}`,
    `guest_budget{domid="1",kind="requestsPerSecond"} ${DEFAULT_BUDGET.requestsPerSecond}`,
    'viewers 0',
  ]) {
    assert(lines.includes(line), line);
  }
});

test('an address that is taken is one clear error', async (context) => {
  const { server, view } = await serve(context);
  await assert.rejects(
    ViewerServer.start(systemRuntime(), { view, host: '127.0.0.1', port: server.port, token }),
    (error) => error instanceof SysError && /EADDRINUSE.*--listen/.test(error.message),
  );
});

test('the URL for people carries the token', async (context) => {
  const { server, port } = await serve(context);
  assert.equal(server.url, `http://127.0.0.1:${port}/?token=${token}`);
});
