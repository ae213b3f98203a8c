// Tokens that are limited to guests, or to looking: what their bearers see, and that nothing else is there.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { SERVER_LIMITS, type ServerLimits } from '../../src/server/limits.ts';
import type { ServedStatus } from '../../src/server/served-status.ts';
import { ViewerServer } from '../../src/server/server.ts';
import { domId } from '../../src/xen/ids.ts';
import { noisyPicture } from '../outputs/pictures.ts';
import { http } from './http-client.ts';
import { ScriptedView } from './scripted-view.ts';
import { ViewClient } from './view-client.ts';

const runtime = systemRuntime();

const MAIN = 'main-token-for-everything';
const PAINT = 'token-for-the-guest-paint';
const SECOND = 'token-for-the-domain-two';
const WATCHER = 'token-to-look-at-all-of-them';
const WINDOW = 'token-to-look-at-paint-alone';

const limitedTokens = [
  { token: PAINT, guests: ['paint'] },
  { token: SECOND, guests: [2] },
  { token: WATCHER, viewOnly: true },
  { token: WINDOW, guests: ['paint', 'nobody'], viewOnly: true },
];

/** Guests 1 `paint`, 2 `type` and 3 `secret`, each with a screen that shows noise. */
async function serve(context: TestContext, limits: Partial<ServerLimits> = {}) {
  const view = new ScriptedView(runtime);
  view.offerControls();
  for (const [index, name] of ['paint', 'type', 'secret'].entries()) {
    const domid = index + 1;
    view.addGuest(domid, name);
    (await view.connect(domid)).show(noisyPicture(domid, { width: 64, height: 48 }));
  }
  const server = await ViewerServer.start(runtime, {
    view,
    host: '127.0.0.1',
    port: 0,
    token: MAIN,
    limitedTokens,
    limits: { ...SERVER_LIMITS, ...limits },
  });
  context.after(() => server[Symbol.asyncDispose]());
  const { port } = server;
  const get = (token: string, path: string) =>
    http({ port, path, headers: { authorization: `Bearer ${token}` } });
  const post = (token: string, path: string, body: unknown) =>
    http({
      port,
      path,
      body: JSON.stringify(body),
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    });
  const guest = (domid: number) => view.guests.get(domId(domid))!;
  const open = (token: string) => new ViewClient(port, { token }).opened();
  const refusals = async (reason: string) => {
    const text = (await get(MAIN, '/metrics')).body.toString();
    const line = text
      .split('\n')
      .find((one) => one.includes(`web_refused_total{reason="${reason}"}`));
    return Number(line?.split(' ').at(-1) ?? 0);
  };
  return { view, port, get, post, guest, open, refusals };
}

const namesIn = ({ guests }: ServedStatus) => guests.map(({ name }) => name);
const KEY = [{ type: 'key', code: 30, pressed: true }];

test('the status has the guests that the token reaches, and says what it allows', async (context) => {
  const { get } = await serve(context);
  for (const [token, names, access] of [
    [MAIN, ['paint', 'type', 'secret'], { limited: false, viewOnly: false }],
    [PAINT, ['paint'], { limited: true, viewOnly: false }],
    [SECOND, ['type'], { limited: true, viewOnly: false }],
    [WATCHER, ['paint', 'type', 'secret'], { limited: false, viewOnly: true }],
    [WINDOW, ['paint'], { limited: true, viewOnly: true }],
  ] as const) {
    const { status, json, body } = await get(token, '/api/status');
    assert.equal(status, 200);
    const answer = json() as ServedStatus;
    assert.deepEqual(namesIn(answer), names, token);
    assert.deepEqual(answer.access, access, token);
    assert.deepEqual(answer.controls, access.viewOnly ? [] : ['stop', 'crash', 'restart']);
    if (access.limited) assert(!body.toString().includes('secret'), 'nowhere in the answer');
  }
});

test('a guest out of reach is answered for as one that does not exist', async (context) => {
  const { get, post, guest, view } = await serve(context);
  const questions = (domid: number) => [
    () => get(PAINT, `/api/guests/${domid}/displays/0.png`),
    () => post(PAINT, `/api/guests/${domid}/input`, KEY),
    () => post(PAINT, `/api/guests/${domid}/control`, { action: 'crash' }),
  ];
  const nobody = 17;
  for (const [index, ask] of questions(nobody).entries()) {
    const expected = await ask();
    assert.equal(expected.status, 404);
    for (const domid of [2, 3]) {
      const answer = await questions(domid)[index]!();
      assert.equal(answer.status, 404);
      const text = answer.body.toString().replaceAll(String(domid), String(nobody));
      assert.equal(text, expected.body.toString(), 'and in the same words');
    }
  }
  assert.deepEqual(guest(2).input.events, []);
  assert.deepEqual(view.acts, []);
  assert.equal((await get(PAINT, '/api/guests/1/displays/0.png')).status, 200);
  assert.equal((await post(PAINT, '/api/guests/1/input', KEY)).status, 200);
  assert.equal((await post(SECOND, '/api/guests/2/control', { action: 'stop' })).status, 200);
  assert.deepEqual(view.acts, ['stop 2']);
});

test('the metrics are for tokens that reach every guest', async (context) => {
  const { get } = await serve(context);
  for (const [token, status] of [
    [MAIN, 200],
    [WATCHER, 200],
    [PAINT, 403],
    [WINDOW, 403],
  ] as const) {
    const answer = await get(token, '/metrics');
    assert.equal(answer.status, status, token);
    if (status === 403) assert(!answer.body.toString().includes('domid'));
  }
});

test('who may only look gets pictures, and a 403 for input and actions, which are counted', async (context) => {
  const { get, post, guest, view, refusals } = await serve(context);
  for (const token of [WATCHER, WINDOW]) {
    assert.equal((await get(token, '/api/guests/1/displays/0.png')).status, 200);
    // In reach or not, there or not: all the same.
    for (const domid of [1, 3, 17]) {
      assert.equal((await post(token, `/api/guests/${domid}/input`, KEY)).status, 403);
      assert.equal(
        (await post(token, `/api/guests/${domid}/control`, { action: 'stop' })).status,
        403,
      );
    }
  }
  assert.deepEqual(guest(1).input.events, []);
  assert.deepEqual(view.acts, []);
  assert.equal(await refusals('view-only'), 12);
});

test('a viewer is shown what its token reaches, though it asks for more', async (context) => {
  const { open, view } = await serve(context);
  const client = await open(PAINT);
  client.watch(1, 2, 3);
  const first = view.screen(domId(1), 0)!;
  await until(runtime, () => client.model.shows(first.shown!), { what: 'the picture in reach' });
  await until(runtime, () => client.statuses.length > 1, { what: 'another status' });
  for (const domid of [2, 3]) {
    assert.equal(view.screen(domId(domid), 0)!.viewers, 0);
  }
  for (const status of client.statuses) assert.deepEqual(namesIn(status), ['paint']);
});

test('a viewer’s input reaches the guests of its token alone', async (context) => {
  const { open, guest } = await serve(context);
  const client = await open(PAINT);
  client.say({ type: 'input', domid: 3, events: KEY });
  client.say({ type: 'input', domid: 2, events: KEY });
  client.say({ type: 'input', domid: 1, events: KEY });
  await until(runtime, () => guest(1).input.events.length > 0, { what: 'the input in reach' });
  assert.deepEqual(guest(2).input.events, []);
  assert.deepEqual(guest(3).input.events, []);
});

test('input on the socket of one who may only look ends it with the reason, and is counted', async (context) => {
  const { open, guest, refusals } = await serve(context);
  for (const token of [WATCHER, WINDOW]) {
    const client = await open(token);
    client.watch(1);
    await until(runtime, () => client.updates > 0, { what: 'the picture' });
    client.say({ type: 'input', domid: 1, events: KEY });
    await until(runtime, () => client.closed !== undefined, { what: 'the end' });
    assert.deepEqual(client.closed, { code: 1008, reason: 'this token is for looking only' });
  }
  assert.deepEqual(guest(1).input.events, []);
  assert.equal(await refusals('view-only'), 2);
});

test('a rule by name holds for whoever has the name now; one by number for whoever has the number', async (context) => {
  const { open, view, get } = await serve(context);
  const client = await open(PAINT);
  client.watch(1, 7);
  const screen = view.screen(domId(1), 0)!;
  await until(runtime, () => client.model.shows(screen.shown!), { what: 'the guest of the name' });

  // The guest goes, and its number is taken by another one.
  await screen[Symbol.asyncDispose]();
  view.guests.delete(domId(1));
  view.addGuest(1, 'stranger');
  const strange = await view.connect(1);
  strange.show(noisyPicture(50, { width: 64, height: 48 }));
  // It comes again under a number of its own.
  view.addGuest(7, 'paint');
  const again = await view.connect(7);
  again.show(noisyPicture(60, { width: 64, height: 48 }));
  await until(runtime, () => client.model.shows(again.shown!), {
    what: 'the guest that came again',
  });
  assert.equal(strange.viewers, 0);
  assert.equal((await get(PAINT, '/api/guests/1/displays/0.png')).status, 404);
  assert.equal((await get(PAINT, '/api/guests/7/displays/0.png')).status, 200);
});

test('a picture stops at once when its guest is out of reach, and what was held down on it goes up', async (context) => {
  const { open, view, guest } = await serve(context);
  const client = await open(PAINT);
  client.watch(1);
  const screen = view.screen(domId(1), 0)!;
  await until(runtime, () => client.model.shows(screen.shown!), { what: 'the picture' });
  client.say({ type: 'input', domid: 1, events: KEY });
  await until(runtime, () => guest(1).input.events.length === 1, { what: 'the key' });
  assert.equal(screen.viewers, 1);
  guest(1).name = 'renamed';
  view.changed();
  await until(runtime, () => screen.viewers === 0, { what: 'the end of the picture' });
  await until(runtime, () => guest(1).input.events.length === 2, { what: 'the key to go up' });
  assert.deepEqual(guest(1).input.events, ['key 30 down', 'key 30 up']);
  client.say({ type: 'input', domid: 1, events: KEY });
  await until(runtime, () => client.statuses.at(-1)?.guests.length === 0, { what: 'the status' });
  assert.equal(guest(1).input.events.length, 2);
});

test('viewers of limited tokens leave room: for those with another one, and for the one with all', async (context) => {
  const { open, port, refusals } = await serve(context, {
    viewers: 6,
    limitedViewers: 4,
    viewersPerLimitedToken: 2,
  });
  const refused = async (token: string) => {
    const client = new ViewClient(port, { token });
    await until(runtime, () => client.refused !== undefined, { what: 'a refusal' });
    return client.refused;
  };
  await open(PAINT);
  const second = await open(PAINT);
  assert.equal(await refused(PAINT), 503, 'a third with one token');
  await open(SECOND);
  await open(WINDOW);
  assert.equal(await refused(WATCHER), 503, 'a fifth with any of them');
  await open(MAIN);
  await open(MAIN);
  assert.equal(await refused(MAIN), 503, 'a seventh at all');
  assert.equal(await refusals('too-many-viewers'), 3);
  second.socket.terminate();
  await until(
    runtime,
    async () => {
      const next = new ViewClient(port, { token: PAINT });
      await until(runtime, () => next.refused !== undefined || next.socket.readyState === 1, {
        what: 'an answer',
      });
      return next.refused === undefined;
    },
    { what: 'room for another' },
  );
});
