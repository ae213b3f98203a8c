// A viewer with a valid token that floods the server waits for itself: it is neither cut off nor does anything of its
// get lost, and others do not notice.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { ViewerMessage } from '../../src/outputs/browser/protocol.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { SERVER_LIMITS } from '../../src/server/limits.ts';
import { ViewerServer } from '../../src/server/server.ts';
import { ViewerPace } from '../../src/server/viewer-pace.ts';
import { noisyPicture } from '../outputs/pictures.ts';
import { ScriptedView } from './scripted-view.ts';
import { ViewClient } from './view-client.ts';

const token = 'a token of the viewer rate test';
const runtime = systemRuntime();
const WORK_PER_SECOND = 2000;
/** A quarter of a MiB each: far more than sockets hold. */
const ROUNDS_MAX = 500;
const PATIENCE = { timeoutMs: 60_000 };

async function serve(context: TestContext, viewerWorkPerSecond: number) {
  const view = new ScriptedView(runtime);
  const guest = view.addGuest(1, 'paint');
  const screen = await view.connect(1);
  const limits = { ...SERVER_LIMITS, viewerWorkPerSecond };
  const options = { view, host: '127.0.0.1', port: 0, token, limits };
  const server = await ViewerServer.start(runtime, options);
  context.after(() => server[Symbol.asyncDispose]());
  const viewer = () => new ViewClient(server.port, { token }).opened();
  const rests = async () => {
    const answer = await fetch(`http://127.0.0.1:${server.port}/metrics?token=${token}`);
    return Number(/^web_throttled_total (\d+)$/m.exec(await answer.text())![1]);
  };
  return { guest, screen, viewer, rests };
}

const wheel = (delta: number) => ({
  type: 'input',
  domid: 1,
  events: [{ type: 'wheel', delta }],
});

test('a flood of input is taken at the rate, in order and whole, while another viewer types at once', async (context) => {
  const { guest, viewer, rests } = await serve(context, WORK_PER_SECOND);
  const [flooder, typist] = [await viewer(), await viewer()];
  const { events } = guest.input;
  const messages = 4 * WORK_PER_SECOND;
  const beganMs = runtime.nowMs();
  for (let delta = 1; delta <= messages; delta++) flooder.say(wheel(delta));
  await until(runtime, () => events.length > 0, { what: 'the flood has begun' });
  typist.say({ type: 'input', domid: 1, events: [{ type: 'key', code: 30, pressed: true }] });
  await until(runtime, () => events.length > messages, { what: 'all of it', ...PATIENCE });
  const typedAt = events.indexOf('key 30 down');
  assert(typedAt > 0 && typedAt < messages / 2, `the key came after ${typedAt} of ${messages}`);
  const wheels = events.filter((event) => event.startsWith('wheel '));
  assert.deepEqual(
    wheels,
    Array.from({ length: messages }, (_, index) => `wheel ${index + 1}`),
  );
  // Each message with its event is two; one second's worth was to be had at once, and the last read of the socket.
  const readAtOnce = (2 * 64 * 1024) / JSON.stringify(wheel(1)).length;
  const leastMs = (1000 * (2 * messages - WORK_PER_SECOND - 2 * readAtOnce)) / WORK_PER_SECOND;
  assert(runtime.nowMs() - beganMs >= leastMs, `in ${runtime.nowMs() - beganMs} ms`);
  assert((await rests()) > 0, 'it is counted');
  assert.equal(flooder.closed, undefined);
});

test('a viewer that asks for a screen again and again and takes nothing is not listened to until it does', async (context) => {
  const { screen, viewer, rests } = await serve(context, SERVER_LIMITS.viewerWorkPerSecond * 100);
  const picture = noisyPicture(1, { width: 256, height: 256 });
  screen.show(picture);
  const client = await viewer();
  client.socket.pause();
  let rounds = 0;
  const askAgain = async () => {
    client.watch();
    client.watch(1);
    rounds += 1;
    assert(rounds < ROUNDS_MAX, 'as many updates wait to be sent');
    return (await rests()) > 0;
  };
  await until(runtime, askAgain, { what: 'a rest', ...PATIENCE });
  client.socket.resume();
  const shown = () => client.model.shows(picture);
  await until(runtime, shown, { what: 'what it had asked for', ...PATIENCE });
  client.watch();
  await until(runtime, () => screen.viewers === 0, { what: 'it is listened to', ...PATIENCE });
  assert.equal(client.closed, undefined);
});

test('a mouse of 1000 Hz, ten fingers at 240 Hz and four screens at 240 Hz never wait', async () => {
  const virtual = new VirtualRuntime(1);
  const source = { pause: () => assert.fail('paused'), resume: () => assert.fail('resumed') };
  const workPerSecond = SERVER_LIMITS.viewerWorkPerSecond;
  const onRest = () => assert.fail('made to wait');
  const pace = new ViewerPace(virtual, { source, workPerSecond, onRest });
  const move: ViewerMessage = {
    type: 'input',
    domid: 1,
    events: [{ type: 'motion', dx: 1, dy: 0 }],
  };
  const touch = { type: 'touch', contact: 0, phase: 'move', x: 1, y: 1 } as const;
  const touches: ViewerMessage = { type: 'input', domid: 1, events: Array(10).fill(touch) };
  const drawn: ViewerMessage = { type: 'drawn', domid: 1, connector: 0, frame: 1 };
  const every = (periodMs: number, say: () => void): void => {
    virtual.after(periodMs, () => {
      say();
      if (virtual.nowMs() < 10_000) every(periodMs, say);
    });
  };
  pace.served({ type: 'watch', screens: [] }, 64);
  every(1, () => pace.served(move, 0));
  every(1000 / 240, () => pace.served(touches, 0));
  for (let screen = 0; screen < 4; screen++) every(1000 / 240, () => pace.served(drawn, 0));
  await virtual.runUntil(() => virtual.nowMs() >= 10_000, { what: 'ten seconds' });
});
