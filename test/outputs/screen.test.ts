import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { DamageTracker } from '../../src/outputs/damage.ts';
import { LookingTime } from '../../src/outputs/looking-time.ts';
import { Screen } from '../../src/outputs/screen.ts';
import { Watching } from '../../src/outputs/watching.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { blankPicture, connectorInfo, noisyPicture } from './pictures.ts';

function screenIn(runtime: VirtualRuntime): Screen {
  return new Screen(runtime, connectorInfo(), { refreshHz: 50 });
}

/** Lets `ms` of virtual time pass. */
async function pass(runtime: VirtualRuntime, ms: number): Promise<void> {
  let over = false;
  runtime.after(ms, () => {
    over = true;
  });
  await runtime.runUntil(() => over, { what: `${ms} ms` });
}

/** A watcher that asks again as soon as it was told, and counts. */
function eagerWatcher(screen: Screen) {
  const told: { generation: number; atMs: number }[] = [];
  const state = { closed: false, told };
  const watch = screen.watch({
    onDamage(damage: DamageTracker, changedAtMs: number) {
      told.push({ generation: damage.generation, atMs: changedAtMs });
      queueMicrotask(() => watch.request(damage.generation));
    },
    onClosed() {
      state.closed = true;
    },
  });
  watch.request(0);
  return Object.assign(state, { watch });
}

test('a guest that flips as fast as it can gets the refresh rate, without drift', async () => {
  const runtime = new VirtualRuntime(1);
  const screen = screenIn(runtime);
  const pictures = [
    noisyPicture(1, { width: 8, height: 8 }),
    noisyPicture(2, { width: 8, height: 8 }),
  ];
  const flippedAtMs: number[] = [];
  const flip = () => {
    const picture = pictures[flippedAtMs.length % 2]!;
    screen.flip(picture, () => {
      assert.equal(screen.shown, picture);
      flippedAtMs.push(runtime.nowMs());
      if (flippedAtMs.length < 200) runtime.after(3, flip);
    });
    assert.notEqual(flippedAtMs.length, 200, 'a flip never completes inside the call');
  };
  flip();
  await runtime.runUntil(() => flippedAtMs.length === 200, { what: '200 flips' });
  assert.deepEqual(
    flippedAtMs.slice(1).map((atMs, index) => Math.round(atMs - flippedAtMs[index]!)),
    Array(199).fill(20),
  );
  assert.equal(await runtime.step(), false, 'no timer is left');
});

test('after a pause a flip completes at once', async () => {
  const runtime = new VirtualRuntime(1);
  const screen = screenIn(runtime);
  await pass(runtime, 1003);
  let flippedAtMs = 0;
  screen.flip(blankPicture({ width: 8, height: 8 }), () => {
    flippedAtMs = runtime.nowMs();
  });
  await runtime.runUntil(() => flippedAtMs > 0, { what: 'the flip' });
  assert.equal(flippedAtMs, 1003);
});

test('every flip is answered exactly once, in order, whatever follows it', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom('flip', 'show', 'blank', 'retire', 'wait'), { maxLength: 40 }),
      fc.nat(),
      async (actions, seed) => {
        const runtime = new VirtualRuntime(seed);
        const screen = screenIn(runtime);
        const picture = blankPicture({ width: 8, height: 8 });
        const answered: number[] = [];
        let flips = 0;
        for (const action of actions) {
          if (action === 'flip') {
            const id = flips++;
            screen.flip(picture, () => answered.push(id));
          } else if (action === 'show') screen.show(picture);
          else if (action === 'blank') screen.show(undefined);
          else if (action === 'retire') await screen.retire(picture);
          else await pass(runtime, 5);
          if (action === 'retire' || action === 'blank') assert.equal(screen.shown, undefined);
        }
        await pass(runtime, 100);
        assert.deepEqual(answered, [...Array(flips).keys()]);
      },
    ),
    { numRuns: 200 },
  );
});

test('a closed screen answers no pending flip and tells its watchers', async () => {
  const runtime = new VirtualRuntime(1);
  let closed = 0;
  const screen = new Screen(runtime, connectorInfo(), { onClosed: () => closed++ });
  const watcher = eagerWatcher(screen);
  screen.flip(blankPicture({ width: 8, height: 8 }), () => assert.fail('answered after the close'));
  await screen[Symbol.asyncDispose]();
  await screen[Symbol.asyncDispose]();
  assert.equal(closed, 1);
  assert.equal(watcher.closed, true);
  await pass(runtime, 100);
  assert.equal(await runtime.step(), false, 'no timer is left');
});

test('while nobody watches, nothing is copied and no timer runs', async () => {
  const runtime = new VirtualRuntime(1);
  const screen = screenIn(runtime);
  screen.show(noisyPicture(1, { width: 64, height: 64 }));
  assert.equal(await runtime.step(), false);
  const watcher = eagerWatcher(screen);
  await pass(runtime, 500);
  assert.equal(screen.bytesCopied, 64 * 64 * 4);
  watcher.watch[Symbol.dispose]();
  assert.equal(await runtime.step(), false, 'no timer is left');
  assert.equal(screen.bytesCopied, 64 * 64 * 4, 'the count outlives the copy');
});

test('a change without a flip is seen; a moving picture is looked at each refresh, a still one seldom', async () => {
  const runtime = new VirtualRuntime(1);
  const screen = screenIn(runtime);
  const picture = blankPicture({ width: 64, height: 64 });
  screen.show(picture);
  const { told } = eagerWatcher(screen);
  let value = 0;
  const draw = () => {
    picture.bytes.fill(++value & 0xff);
    if (value < 50) runtime.after(20, draw);
  };
  draw();
  await pass(runtime, 1000);
  assert(told.length >= 45, `${told.length} changes of 50 were seen in a second of 50 Hz`);

  await pass(runtime, 2000);
  const before = told.length;
  picture.bytes.fill(0xaa);
  const changedAtMs = runtime.nowMs();
  await runtime.runUntil(() => told.length > before, { what: 'the change after stillness' });
  assert(told.at(-1)!.atMs - changedAtMs <= 125);
});

test('input makes the next look come at the refresh rate', async () => {
  const runtime = new VirtualRuntime(1);
  const screen = screenIn(runtime);
  const picture = blankPicture({ width: 64, height: 64 });
  screen.show(picture);
  const { told } = eagerWatcher(screen);
  await pass(runtime, 3000);
  screen.stir();
  await pass(runtime, 1);
  picture.bytes.fill(1);
  const changedAtMs = runtime.nowMs();
  await runtime.runUntil(() => told.length > 1, { what: 'the echo' });
  assert(told.at(-1)!.atMs - changedAtMs <= 21);
});

test('a watcher that does not ask is not told, and then gets one summary of all it missed', async () => {
  const runtime = new VirtualRuntime(1);
  const screen = screenIn(runtime);
  const picture = blankPicture({ width: 64, height: 64 });
  screen.show(picture);
  const fast = eagerWatcher(screen);
  let slowTold = 0;
  const slow = screen.watch({ onDamage: () => slowTold++, onClosed: () => {} });
  slow.request(0);
  for (let value = 1; value <= 20; value++) {
    picture.bytes.fill(value);
    await pass(runtime, 40);
  }
  assert.equal(slowTold, 1);
  assert(fast.told.length > 10);
  slow.request(1);
  assert.equal(slowTold, 2);
});

test('flips are seen by watchers at each refresh, and pictures switched faster are looked at no faster', async () => {
  const runtime = new VirtualRuntime(1);
  const screen = screenIn(runtime);
  const { told } = eagerWatcher(screen);
  for (let index = 0; index < 200; index++) {
    screen.show(noisyPicture(index, { width: 16, height: 16 }));
    await pass(runtime, 1);
  }
  assert(told.length > 10 && told.length <= 22, `${told.length} looks in 200 ms at 50 Hz`);
});

test('looking at a picture that takes long to compare leaves most of the time to others', () => {
  const runtime = new VirtualRuntime(1);
  const picture = blankPicture({ width: 8, height: 8 });
  let nowMs = 0;
  let lookAgainAtMs = 0;
  const slow: Runtime = {
    nowMs: () => nowMs,
    wallMs: () => runtime.wallMs(),
    after: (delayMs, task) => {
      lookAgainAtMs = nowMs + delayMs;
      return runtime.after(delayMs, task);
    },
    defer: (task) => runtime.defer(task),
    random: runtime.random,
    log: runtime.log,
  };
  // Reading the picture takes 10 ms, as a huge one does on a slow machine.
  const shown = () => {
    nowMs += 10;
    return picture;
  };
  const watching = new Watching(slow, { periodMs: 16, shown, looking: new LookingTime(slow) });
  const watch = watching.watch({ onDamage: () => {}, onClosed: () => {} });
  watch.request(0);
  watch.request(2);
  assert.equal(lookAgainAtMs, 40);
  watch[Symbol.dispose]();
});

test('all screens together are looked at half of the time at most, and each gets its turn', async () => {
  const SCREENS = 9;
  const runtime = new VirtualRuntime(1);
  let lookedMs = 0;
  const slow: Runtime = {
    nowMs: () => runtime.nowMs() + lookedMs,
    wallMs: () => runtime.wallMs(),
    after: (delayMs, task) => runtime.after(delayMs, task),
    defer: (task) => runtime.defer(task),
    random: runtime.random,
    log: runtime.log,
  };
  const looking = new LookingTime(slow);
  const looks = new Array<number>(SCREENS).fill(0);
  const watches = looks.map((_, index) => {
    // Each look takes 10 ms, and finds a picture of another size.
    const pictures = [8, 9].map((width) => {
      const picture = blankPicture({ width, height: 8 });
      const { stride } = picture;
      const takeTime = () => {
        lookedMs += 10;
        looks[index]! += 1;
        return stride;
      };
      return Object.defineProperty(picture, 'stride', { get: takeTime });
    });
    const shown = () => pictures[looks[index]! % 2];
    const watching = new Watching(slow, { periodMs: 16, shown, looking });
    const onDamage = ({ generation }: DamageTracker) => {
      runtime.defer(() => {
        watching.switched({ flipped: true });
        watch.request(generation);
      });
    };
    const watch = watching.watch({ onDamage, onClosed: () => {} });
    watch.request(0);
    return { watch, watching };
  });
  await runtime.runUntil(() => slow.nowMs() > 10_000, { what: 'ten seconds' });
  assert(lookedMs <= 5_000 + 10, `${lookedMs} ms of looking in 10 s`);
  assert(lookedMs > 4_000, `${lookedMs} ms of looking in 10 s`);
  assert(Math.max(...looks) - Math.min(...looks) <= 1, `looks: ${looks.join(' ')}`);
  for (const { watch, watching } of watches) {
    watch[Symbol.dispose]();
    watching.close();
  }
  while (await runtime.step());
});
