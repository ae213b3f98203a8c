import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RGB565, XRGB8888 } from '../../src/display/pixel-format.ts';
import { CODEC_DEFLATE_RAW, readUpdate } from '../../src/outputs/browser/protocol.ts';
import { ScreenViewer } from '../../src/outputs/browser/screen-viewer.ts';
import { Screen } from '../../src/outputs/screen.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { blankPicture, connectorInfo, noisyPicture } from './pictures.ts';
import { ViewerModel } from './viewer-model.ts';

/** A viewer on a screen, whose link keeps what was sent until the test takes it. */
function viewerOf(screen: Screen, runtime = systemRuntime(), { local = true } = {}) {
  const sent: Buffer[] = [];
  const state = { sent, closed: false };
  const viewer = new ScreenViewer(runtime, {
    screen,
    transport: {
      local,
      send: async (message) => {
        sent.push(Buffer.from(message));
      },
      fail: (reason) => assert.fail(String(reason)),
    },
    onClosed: () => {
      state.closed = true;
    },
  });
  return Object.assign(state, { viewer });
}

test('updates, raw and deflated, take a viewer to exactly the guest’s pixels', async () => {
  for (const local of [true, false]) {
    for (const format of [XRGB8888, RGB565]) {
      const runtime = systemRuntime();
      const screen = new Screen(runtime, connectorInfo());
      const picture = blankPicture({ width: 801, height: 601, format, padding: 64 });
      screen.show(picture);
      const { viewer, sent } = viewerOf(screen, runtime, { local });
      const model = new ViewerModel();
      for (let round = 0; round < 10; round++) {
        picture.bytes.fill(round, round * 5000, round * 9000);
        await until(
          runtime,
          () => {
            for (const message of sent.splice(0)) viewer.drawn(model.apply(message).frame);
            return model.shows(picture);
          },
          { what: `round ${round}` },
        );
      }
      viewer[Symbol.dispose]();
    }
  }
});

test('compressible pixels are compressed for a remote viewer only, in chunks; noise is sent as it is', async () => {
  const picture = blankPicture({ width: 1024, height: 1024 });
  const noise = noisyPicture(1, { width: 640, height: 480 });
  for (const [shown, local, compressed] of [
    [picture, false, true],
    [picture, true, false],
    [noise, false, false],
  ] as const) {
    const screen = new Screen(systemRuntime(), connectorInfo());
    screen.show(shown);
    const { viewer, sent } = viewerOf(screen, systemRuntime(), { local });
    await until(systemRuntime(), () => sent.length > 0, { what: 'the first update' });
    const { chunks } = readUpdate(new Uint8Array(sent[0]!).buffer);
    assert.equal(
      chunks.every(({ codec }) => codec === CODEC_DEFLATE_RAW),
      compressed,
    );
    assert.equal(chunks.length, compressed ? 4 : chunks.length);
    if (compressed) assert(sent[0]!.length < picture.bytes.length / 50);
    viewer[Symbol.dispose]();
  }
});

test('a viewer that says nothing gets one update, however much the picture changes', async () => {
  const runtime = new VirtualRuntime(1);
  const screen = new Screen(runtime, connectorInfo());
  const { sent, viewer } = viewerOf(screen, runtime);
  let flips = 0;
  const flip = () => {
    if (flips++ < 200) screen.flip(noisyPicture(flips, { width: 70, height: 70 }), flip);
  };
  flip();
  await runtime.runUntil(() => flips > 200, { what: '200 flips' });
  assert.equal(sent.length, 1);
  const model = new ViewerModel();
  viewer.drawn(model.apply(sent[0]!).frame + 1);
  await runtime.step();
  assert.equal(sent.length, 1, 'a word for another update gives no credit');
  viewer.drawn(1);
  viewer.drawn(1);
  await runtime.step();
  assert.equal(sent.length, 2, 'one word, one update');
  model.apply(sent[1]!);
  assert(model.shows(screen.shown!), 'what was missed came at once');
});

test('viewers of any speeds, joining and leaving, see what the guest shows', async () => {
  const action = fc.record({
    kind: fc.constantFrom('draw', 'flip', 'resize', 'blank', 'join', 'leave', 'ack', 'wait'),
    who: fc.nat({ max: 2 }),
    value: fc.nat({ max: 255 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
      const runtime = new VirtualRuntime(1);
      const screen = new Screen(runtime, connectorInfo());
      let picture = blankPicture({ width: 130, height: 70 });
      screen.show(picture);
      const viewers = new Map<number, ReturnType<typeof viewerOf> & { model: ViewerModel }>();
      const acknowledge = (who: number) => {
        const one = viewers.get(who);
        const message = one?.sent.shift();
        if (message) one?.viewer.drawn(one.model.apply(message).frame);
      };
      for (const { kind, who, value } of actions) {
        if (kind === 'draw') picture.bytes.fill(value, value * 100, value * 140);
        if (kind === 'flip') {
          picture = noisyPicture(value, picture);
          screen.flip(picture, () => {});
        }
        if (kind === 'resize') {
          picture = noisyPicture(value, { width: 10 + value, height: 90 });
          screen.show(picture);
        }
        if (kind === 'blank') screen.show(undefined);
        if (kind === 'join' && !viewers.has(who)) {
          viewers.set(who, Object.assign(viewerOf(screen, runtime), { model: new ViewerModel() }));
        }
        if (kind === 'leave') {
          viewers.get(who)?.viewer[Symbol.dispose]();
          viewers.delete(who);
        }
        if (kind === 'ack') acknowledge(who);
        if (kind === 'wait') await runtime.step();
        for (const { sent } of viewers.values()) assert(sent.length <= 1, 'a queue grew');
      }
      screen.show(picture);
      const settled = () =>
        [...viewers.values()].every(({ model, sent }) => sent.length === 0 && model.shows(picture));
      for (let round = 0; round < 50 && !settled(); round++) {
        for (const who of viewers.keys()) acknowledge(who);
        await runtime.step();
      }
      assert(settled(), 'a viewer does not see the last picture');
    }),
    { numRuns: 200 },
  );
});

test('a blank screen is told as a picture of no size, and a closed one as closed', async () => {
  const runtime = new VirtualRuntime(1);
  const screen = new Screen(runtime, connectorInfo({ domid: 7, index: 2 }));
  const one = viewerOf(screen, runtime);
  await runtime.step();
  const { domid, connector, width, height, fourcc } = readUpdate(
    new Uint8Array(one.sent[0]!).buffer,
  );
  assert.deepEqual(
    { domid, connector, width, height, fourcc },
    { domid: 7, connector: 2, width: 0, height: 0, fourcc: 0 },
  );
  await screen[Symbol.asyncDispose]();
  assert.equal(one.closed, true);
  one.viewer.drawn(1);
  one.viewer[Symbol.dispose]();
});

test('a link that turns out slow is compressed for', async () => {
  const runtime = new VirtualRuntime(1);
  const screen = new Screen(runtime, connectorInfo());
  const picture = blankPicture({ width: 512, height: 512 });
  screen.show(picture);
  const { viewer, sent } = viewerOf(screen, runtime, { local: true });
  const sizes: number[] = [];
  for (let round = 1; round <= 5; round++) {
    picture.bytes.fill(round);
    const arrived = async () => {
      await runtime.step();
      return sent.length > 0;
    };
    await until(systemRuntime(), arrived, { what: 'an update' });
    const message = sent.shift()!;
    sizes.push(message.length);
    let later = false;
    runtime.after(1000, () => {
      later = true;
    });
    await runtime.runUntil(() => later, { what: 'the slow link' });
    viewer.drawn(readUpdate(new Uint8Array(message).buffer).frame);
  }
  assert(sizes[0]! > picture.bytes.length);
  assert(sizes.at(-1)! < picture.bytes.length / 50);
  viewer[Symbol.dispose]();
});
