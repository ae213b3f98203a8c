// A bearer of a token that sends requests without end: it is told when to come again, and nobody else notices.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { HttpError } from '../../src/server/http-error.ts';
import { SERVER_LIMITS } from '../../src/server/limits.ts';
import { Permit } from '../../src/server/permit.ts';
import { RequestPace } from '../../src/server/request-pace.ts';
import { ViewerServer } from '../../src/server/server.ts';
import { http } from './http-client.ts';
import { ScriptedView } from './scripted-view.ts';

const runtime = systemRuntime();
const MAIN = 'main-token-of-the-request-rate-test';
const SCRIPT = 'token-of-a-script-without-manners';
const WORK_PER_SECOND = 200;
const ONE_IN_100_S = 0.01;

async function serve(context: TestContext, requestWorkPerSecond = WORK_PER_SECOND) {
  const view = new ScriptedView(runtime);
  const guest = view.addGuest(1, 'paint');
  const server = await ViewerServer.start(runtime, {
    view,
    host: '127.0.0.1',
    port: 0,
    token: MAIN,
    limitedTokens: [{ token: SCRIPT, guests: ['paint'] }],
    limits: { ...SERVER_LIMITS, requestWorkPerSecond },
  });
  context.after(() => server[Symbol.asyncDispose]());
  const { port } = server;
  const headersOf = (token: string) => ({ authorization: `Bearer ${token}` });
  const get = (token: string, path: string) => http({ port, path, headers: headersOf(token) });
  const post = (token: string, events: unknown) =>
    http({
      port,
      path: '/api/guests/1/input',
      body: JSON.stringify(events),
      headers: { ...headersOf(token), 'content-type': 'application/json' },
    });
  return { guest, get, post };
}

const wheels = (count: number) =>
  Array.from({ length: count }, () => ({ type: 'wheel', delta: 1 }));

test('input without end is answered 429 with the time to wait, and is taken again after it', async (context) => {
  const { guest, get, post } = await serve(context);
  const { status } = await post(SCRIPT, wheels(3 * WORK_PER_SECOND));
  assert.equal(status, 200, 'what comes first is never late');
  const sent = guest.input.events.length;
  const refused = await post(SCRIPT, wheels(1));
  assert.equal(refused.status, 429);
  assert.match(refused.body.toString(), /too many requests/);
  const waitS = Number(refused.headers['retry-after']);
  assert(waitS >= 1 && waitS <= 4, `${waitS} s`);
  assert.equal(guest.input.events.length, sent, 'nothing of it was done');
  assert.equal((await get(SCRIPT, '/api/status')).status, 429, 'whatever it asks for');
  assert.equal((await post(MAIN, wheels(1))).status, 200, 'another token');
  const metrics = (await get(MAIN, '/metrics')).body.toString();
  assert.match(metrics, /^web_refused_total\{reason="too-many-requests"\} 2$/m);
  const taken = async () => (await post(SCRIPT, wheels(1))).status === 200;
  await until(runtime, taken, { what: 'it is taken again', timeoutMs: 60_000, intervalMs: 200 });
});

test('a script that asks for the status a hundred times a second, and types as fast, never waits', async () => {
  const virtual = new VirtualRuntime(1);
  const pace = new RequestPace(virtual, SERVER_LIMITS.requestWorkPerSecond);
  const permit = new Permit();
  const key = JSON.stringify([{ type: 'key', code: 30, pressed: true }]);
  const ask = (): void => {
    pace.request(permit);
    pace.request(permit);
    pace.body(permit, key.length);
    if (virtual.nowMs() < 10_000) virtual.after(10, ask);
  };
  ask();
  await virtual.runUntil(() => virtual.nowMs() >= 10_000, { what: 'ten seconds' });
});

test('a request for what is not there is paid for as well', async (context) => {
  const { get } = await serve(context, ONE_IN_100_S);
  assert.equal((await get(SCRIPT, '/api/nothing')).status, 404);
  assert.equal((await get(SCRIPT, '/api/nothing')).status, 429);
});

test('a bearer pays for itself, and in time', async () => {
  const virtual = new VirtualRuntime(1);
  const pace = new RequestPace(virtual, 100);
  const [one, other] = [new Permit(), new Permit()];
  pace.body(one, 32 * 199);
  assert.throws(
    () => pace.request(one),
    (error) => {
      assert(error instanceof HttpError);
      assert.deepEqual([error.status, error.headers], [429, { 'retry-after': '1' }]);
      return true;
    },
  );
  pace.request(other);
  virtual.after(1000, () => {});
  await virtual.runUntil(() => virtual.nowMs() >= 1000, { what: 'a second' });
  pace.request(one);
});
