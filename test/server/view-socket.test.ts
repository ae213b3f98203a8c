import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { SERVER_LIMITS } from '../../src/server/limits.ts';
import { ViewerServer } from '../../src/server/server.ts';
import { noisyPicture } from '../outputs/pictures.ts';
import { ScriptedView } from './scripted-view.ts';
import { ViewClient, type ViewClientOptions } from './view-client.ts';

const token = 'a token/with odd&characters=';
const runtime = systemRuntime();

async function serve(context: TestContext) {
  const view = new ScriptedView(runtime);
  const guest = view.addGuest(1, 'paint');
  const screen = await view.connect(1);
  const server = await ViewerServer.start(runtime, { view, host: '127.0.0.1', port: 0, token });
  context.after(() => server[Symbol.asyncDispose]());
  return { view, guest, screen, server };
}

test('a socket needs the token, our name, our origin and the right path', async (context) => {
  const { server } = await serve(context);
  const cases: [ViewClientOptions, number][] = [
    [{}, 401],
    [{ token: 'wrong' }, 401],
    [{ token, headers: { host: 'evil.example' } }, 403],
    [{ token, headers: { origin: 'http://evil.example' } }, 403],
    [{ token, path: '/api/other' }, 404],
  ];
  for (const [options, status] of cases) {
    const client = new ViewClient(server.port, options);
    await until(runtime, () => client.refused !== undefined, { what: `a refusal with ${status}` });
    assert.equal(client.refused, status);
  }
  const headers = { origin: `http://127.0.0.1:${server.port}` };
  await new ViewClient(server.port, { token, headers }).opened();
});

test('viewers see the picture, its changes, and the status', async (context) => {
  const { server, screen, view } = await serve(context);
  const picture = noisyPicture(1, { width: 200, height: 100 });
  screen.show(picture);
  const clients = await Promise.all(
    [0, 1].map(() => new ViewClient(server.port, { token }).opened()),
  );
  for (const client of clients) client.watch(1);
  for (let round = 0; round < 5; round++) {
    picture.bytes.fill(round, round * 1000, round * 3000);
    await until(runtime, () => clients.every(({ model }) => model.shows(picture)), {
      what: 'the picture',
    });
  }
  assert.equal(screen.viewers, 2);
  assert(screen.viewLatencyMs! >= 0);
  view.addGuest(5, 'late');
  const told = ({ statuses }: ViewClient) =>
    statuses.at(-1)?.guests.some(({ name }) => name === 'late');
  await until(runtime, () => clients.every(told), { what: 'the new guest in the status' });
});

test('a screen that is watched before it exists, goes and comes back is shown each time', async (context) => {
  const { server, view, screen } = await serve(context);
  const client = await new ViewClient(server.port, { token }).opened();
  client.watch(1, 2);
  const first = noisyPicture(1, { width: 64, height: 64 });
  screen.show(first);
  await until(runtime, () => client.model.shows(first), { what: 'the first screen' });
  await screen[Symbol.asyncDispose]();
  const again = await view.connect(1);
  const second = noisyPicture(2, { width: 64, height: 64 });
  again.show(second);
  await until(runtime, () => client.model.shows(second), { what: 'the screen that came back' });
  client.watch();
  await until(runtime, () => again.viewers === 0, { what: 'the end of the watching' });
});

test('a viewer that never says drawn gets one update, and the server keeps nothing for it', async (context) => {
  const { server, screen } = await serve(context);
  const client = await new ViewClient(server.port, { token }).opened();
  client.draws = false;
  client.watch(1);
  let flips = 0;
  const flip = () => {
    if (flips++ < 60) screen.flip(noisyPicture(flips, { width: 64, height: 64 }), flip);
  };
  flip();
  await until(runtime, () => flips > 60 && client.updates > 0, { what: '60 flips' });
  client.watch(1);
  assert.equal(client.updates, 1);
});

test('input goes to the guest; what is outside its area is left out', async (context) => {
  const { server, guest } = await serve(context);
  const client = await new ViewClient(server.port, { token }).opened();
  client.say({
    type: 'input',
    domid: 1,
    events: [
      { type: 'position', x: 640, y: 0 },
      { type: 'position', x: 12, y: 34 },
      { type: 'key', code: 0x110, pressed: true },
      { type: 'key', code: 0x110, pressed: false },
    ],
  });
  client.say({ type: 'input', domid: 77, events: [{ type: 'wheel', delta: 1 }] });
  await until(runtime, () => guest.input.events.length === 3, { what: 'the events' });
  assert.deepEqual(guest.input.events, ['position 12 34', 'key 272 down', 'key 272 up']);
});

test('what a viewer holds down is released on its word and when it goes; what others hold is not', async (context) => {
  const { server, guest } = await serve(context);
  const [one, two] = await Promise.all(
    [0, 1].map(() => new ViewClient(server.port, { token }).opened()),
  );
  const press = (client: ViewClient, code: number) =>
    client.say({ type: 'input', domid: 1, events: [{ type: 'key', code, pressed: true }] });
  const { events } = guest.input;
  press(two!, 42);
  press(one!, 30);
  await until(runtime, () => events.length === 2, { what: 'two keys down' });
  one!.say({ type: 'release', domid: 1 });
  await until(runtime, () => events.length === 3, { what: 'the release' });
  assert.equal(events[2], 'key 30 up');
  one!.say({
    type: 'input',
    domid: 1,
    events: [{ type: 'touch', contact: 2, phase: 'down', x: 3, y: 4 }],
  });
  press(one!, 31);
  await until(runtime, () => events.length === 5, { what: 'more input' });
  one!.socket.terminate();
  await until(runtime, () => events.length === 7, {
    what: 'the releases of a viewer that is gone',
  });
  assert.deepEqual(events.slice(5), ['key 31 up', 'touch 2 up 3 4']);
  assert(!events.includes('key 42 up'));
});

test('messages that are not of the protocol end the connection with the reason', async (context) => {
  const { server, guest } = await serve(context);
  const wrong: [string | Buffer, number][] = [
    ['{', 1008],
    ['[]', 1008],
    [JSON.stringify({ type: 'watch', screens: Array(65).fill({ domid: 1, connector: 0 }) }), 1008],
    [
      JSON.stringify({
        type: 'input',
        domid: 1,
        events: [{ type: 'key', code: 9999, pressed: true }],
      }),
      1008,
    ],
    [JSON.stringify({ type: 'drawn', domid: 40000, connector: 0, frame: 1 }), 1008],
    [Buffer.from([1, 2, 3]), 1003],
    [' '.repeat(200 * 1024), 1009],
  ];
  for (const [message, code] of wrong) {
    const client = await new ViewClient(server.port, { token }).opened();
    client.socket.send(message);
    await until(runtime, () => client.closed !== undefined, { what: 'the close' });
    assert.equal(client.closed!.code, code, message.toString().slice(0, 60));
    if (code === 1008) assert.notEqual(client.closed!.reason, '');
  }
  assert.deepEqual(guest.input.events, []);
});

test('what follows a message that is not of the protocol is not listened to', async (context) => {
  const { server, guest } = await serve(context);
  const client = await new ViewClient(server.port, { token }).opened();
  client.socket.send('{');
  client.say({ type: 'input', domid: 1, events: [{ type: 'key', code: 30, pressed: true }] });
  await until(runtime, () => client.closed !== undefined, { what: 'the close' });
  assert.deepEqual(guest.input.events, []);
});

test('what a viewer’s message breaks ends that viewer, and the others see on', async (context) => {
  const { server, guest, screen } = await serve(context);
  const [one, other] = await Promise.all(
    [0, 1].map(() => new ViewClient(server.port, { token }).opened()),
  );
  other!.watch(1);
  guest.input.key = () => {
    throw new TypeError('a defect of ours');
  };
  one!.say({ type: 'input', domid: 1, events: [{ type: 'key', code: 30, pressed: true }] });
  await until(runtime, () => one!.closed !== undefined, { what: 'the end of the one' });
  assert.equal(one!.closed!.code, 1011);
  const picture = noisyPicture(1, { width: 64, height: 64 });
  screen.show(picture);
  await until(runtime, () => other!.model.shows(picture), { what: 'the picture of the other' });
});

test('a status that cannot be made is told to nobody, and to all again when it can', async (context) => {
  const { server, view } = await serve(context);
  const client = await new ViewClient(server.port, { token }).opened();
  await until(runtime, () => client.statuses.length > 0, { what: 'a status' });
  const status = view.status.bind(view);
  view.status = () => {
    throw new TypeError('a defect of ours');
  };
  view.changed();
  const late = new ViewClient(server.port, { token });
  await until(runtime, () => late.refused !== undefined, { what: 'a refusal' });
  assert.equal(late.refused, 500);
  view.status = status;
  const { length } = client.statuses;
  view.addGuest(2, 'late');
  await until(runtime, () => client.statuses.length > length, { what: 'the next status' });
  assert.equal(client.closed, undefined);
});

test('there is room for so many viewers and no more', async (context) => {
  const { server } = await serve(context);
  const clients = Array.from(
    { length: SERVER_LIMITS.viewers },
    () => new ViewClient(server.port, { token }),
  );
  await Promise.all(clients.map((client) => client.opened()));
  const late = new ViewClient(server.port, { token });
  await until(runtime, () => late.refused !== undefined, { what: 'the refusal' });
  assert.equal(late.refused, 503);
  clients[0]!.socket.terminate();
  await until(
    runtime,
    async () => {
      const next = new ViewClient(server.port, { token });
      await until(runtime, () => next.refused !== undefined || next.socket.readyState === 1, {
        what: 'an answer',
      });
      return next.refused === undefined;
    },
    { what: 'room for another' },
  );
});

test('a server stops though a refused client keeps its socket open', async () => {
  const view = new ScriptedView(runtime);
  const server = await ViewerServer.start(runtime, { view, host: '127.0.0.1', port: 0, token });
  const socket = connect({ host: '127.0.0.1', port: server.port, allowHalfOpen: true });
  let answer = '';
  socket.on('data', (data) => {
    answer += data;
  });
  socket.write(
    'GET /api/view HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
  );
  await until(runtime, () => answer.includes('token is needed'), { what: 'the refusal' });
  await server[Symbol.asyncDispose]();
  socket.destroy();
});

test('a server that stops says so to its viewers, and does not wait for those that do not answer', async () => {
  const view = new ScriptedView(runtime);
  const screen = await view.connect(1);
  screen.show(noisyPicture(1, { width: 640, height: 480 }));
  const server = await ViewerServer.start(runtime, { view, host: '127.0.0.1', port: 0, token });
  const polite = await new ViewClient(server.port, { token }).opened();
  const stuck = await new ViewClient(server.port, { token }).opened();
  polite.watch(1);
  stuck.socket.pause();
  await server[Symbol.asyncDispose]();
  await until(runtime, () => polite.closed !== undefined, { what: 'the goodbye' });
  assert.equal(polite.closed!.code, 1001);
  assert.equal(screen.viewers, 0);
  stuck.socket.terminate();
});
