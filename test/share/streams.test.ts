// Streams of frames: in order, never touched by both ends at once, waited for or dropped, with fences.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ReadableFrame } from '../../src/share/consumer.ts';
import type { ExportedShare } from '../../src/share/exported-share.ts';
import type { ImportedShare } from '../../src/share/imported-share.ts';
import type { Importer } from '../../src/share/importer.ts';
import type { FrameProducer, WhenFull } from '../../src/share/producer.ts';
import { type ShareWorld, shareError, sharing } from './world.ts';

interface Stream {
  readonly importer: Importer;
  readonly share: ExportedShare;
  readonly open: ImportedShare;
  readonly producer: FrameProducer;
}

async function stream(
  world: ShareWorld,
  { slots = 3, whenFull = 'wait' as WhenFull, byteLength = 4096 } = {},
): Promise<Stream> {
  const { alice, bob, run } = world;
  const importer = await world.importer(bob, alice);
  const request = { to: bob.domain.domid, memory: { byteLength }, slots, whenFull };
  const share = await run(world.exporter(alice).stream(request));
  await world.next(importer);
  const open = await run(importer.open(share.id));
  return { importer, share, open, producer: share.producer };
}

/** Publishes a frame that is full of `value`. */
async function publish({ run }: ShareWorld, { producer }: Stream, value: number) {
  const frame = await run(producer.acquire());
  frame.bytes.fill(value);
  return frame.publish({ timestampNs: BigInt(value) });
}

test('frames come in order, in place, with their sequence and timestamp', () =>
  sharing(async (world) => {
    const it = await stream(world);
    const { run } = world;
    const fences = [await publish(world, it, 1), await publish(world, it, 2)];
    assert.deepEqual(
      fences.map(({ sequence, timestampNs, fate }) => ({ sequence, timestampNs, fate })),
      [
        { sequence: 1, timestampNs: 1n, fate: undefined },
        { sequence: 2, timestampNs: 2n, fate: undefined },
      ],
    );
    const first = (await run(it.open.frames.acquire()))!;
    assert.equal(first.sequence, 1);
    assert.equal(first.timestampNs, 1n);
    assert(first.bytes.every((byte) => byte === 1));
    const second = (await run(it.open.frames.acquire()))!;
    assert.equal(second.sequence, 2);
    second.release();
    second.release();
    assert.equal(await run(fences[1]!.done), 'consumed');
    assert.equal(fences[0]!.fate, undefined, 'still held');
    first.release();
    assert.equal(await run(fences[0]!.done), 'consumed');
  }));

test('a consumer that waits is woken by the next frame, and a producer by the next free slot', () =>
  sharing(async (world) => {
    const it = await stream(world, { slots: 1 });
    const { run } = world;
    const waiting = it.open.frames.acquire();
    await world.pause(50);
    await publish(world, it, 1);
    const frame = (await run(waiting))!;
    const blocked = it.producer.acquire();
    assert.equal(it.producer.tryAcquire(), undefined);
    await world.pause(50);
    frame.release();
    (await run(blocked)).discard();
    await assert.rejects(
      run(it.open.frames.acquire({ timeoutMs: 10 })),
      shareError('timed-out', /the next frame/),
    );
  }));

test('a producer that drops takes the oldest frame back that nobody took', () =>
  sharing(async (world) => {
    const it = await stream(world, { slots: 3, whenFull: 'drop' });
    const { run } = world;
    await publish(world, it, 1);
    const held = (await run(it.open.frames.acquire()))!;
    const second = await publish(world, it, 2);
    await publish(world, it, 3);
    await publish(world, it, 4);
    assert.equal(second.fate, 'dropped');
    assert.equal(it.producer.dropped, 1);
    assert.equal(held.bytes[0], 1, 'a held frame is not touched');
    held.release();
    const third = (await run(it.open.frames.acquire()))!;
    assert.equal(third.sequence, 3);
    assert.equal(it.open.frames.skipped, 1);
    third.release();
  }));

test('with every slot held, even a producer that drops waits', () =>
  sharing(async (world) => {
    const it = await stream(world, { slots: 2, whenFull: 'drop' });
    const { run } = world;
    await publish(world, it, 1);
    await publish(world, it, 2);
    const held = [await run(it.open.frames.acquire()), await run(it.open.frames.acquire())];
    assert.equal(it.producer.tryAcquire(), undefined);
    const blocked = it.producer.acquire();
    held[1]!.release();
    (await run(blocked)).discard();
    held[0]!.release();
  }));

test('who wants the latest frame gets it, and gives the others back', () =>
  sharing(async (world) => {
    const it = await stream(world, { slots: 4 });
    const { run } = world;
    const fences = [await publish(world, it, 1), await publish(world, it, 2)];
    await publish(world, it, 3);
    const frame = (await run(it.open.frames.acquire({ latest: true })))!;
    assert.equal(frame.sequence, 3);
    assert.equal(await run(fences[0]!.done), 'consumed');
    assert.equal(await run(fences[1]!.done), 'consumed');
    frame.release();
  }));

test('the end of a stream comes after its last frame, and is waited for by drained()', () =>
  sharing(async (world) => {
    const it = await stream(world);
    const { run } = world;
    for (const value of [1, 2]) await publish(world, it, value);
    it.producer.end();
    const drained = it.producer.drained();
    const seen: number[] = [];
    const reading = (async () => {
      for await (const frame of it.open.frames) seen.push(frame.bytes[0]!);
    })();
    await run(reading);
    assert.deepEqual(seen, [1, 2]);
    await run(drained);
  }));

test('a frame may be shorter than its slot', () =>
  sharing(async (world) => {
    const it = await stream(world, { byteLength: 9000 });
    const { run } = world;
    const frame = await run(it.producer.acquire());
    assert.equal(frame.bytes.length, 9000);
    frame.publish({ byteLength: 17 });
    const read = (await run(it.open.frames.acquire()))!;
    assert.equal(read.bytes.length, 17);
    read.release();
  }));

test('a consumer that goes leaves its frames, and the next one goes on', () =>
  sharing(async (world) => {
    const it = await stream(world);
    const { run } = world;
    const fence = await publish(world, it, 1);
    await run(it.open.frames.acquire());
    const waiting = await publish(world, it, 2);
    await run(it.open.close());
    assert.equal(await run(fence.done), 'consumer-gone');
    assert.equal(await run(waiting.done), 'consumer-gone');
    const again = await run(it.importer.open(it.share.id));
    await publish(world, it, 3);
    const frame = (await run(again.frames.acquire()))!;
    assert.equal(frame.bytes[0], 3);
    frame.release();
  }));

test('a consumer that takes the last frame and goes at once has consumed it', () =>
  sharing(async (world) => {
    const it = await stream(world);
    const { run } = world;
    const fence = await publish(world, it, 1);
    it.producer.end();
    const frame = (await run(it.open.frames.acquire()))!;
    frame.release();
    await run(it.open.close());
    await world.until(() => it.share.state === 'offered', 'the exporter hears of it');
    assert.equal(fence.fate, 'consumed');
  }));

test('the withdrawal of a stream ends both ends', () =>
  sharing(async (world) => {
    const it = await stream(world, { slots: 1 });
    const { run } = world;
    const waiting = it.open.frames.acquire();
    const caught = assert.rejects(waiting, shareError('withdrawn'));
    await publish(world, it, 1).catch(() => {});
    await run(caught.catch(() => {}));
    const blocked = it.producer.acquire();
    const refused = assert.rejects(blocked, shareError('withdrawn'));
    const withdrawn = it.share.withdraw({ deadlineMs: 100 });
    await run(refused);
    assert.deepEqual(await run(withdrawn), { state: 'released' });
  }));

test('whatever the two ends do, every frame is seen once, whole and in order, or its fence says why not', () =>
  fc.assert(
    fc.asyncProperty(
      fc.record({
        seed: fc.integer({ min: 1, max: 1_000_000 }),
        slots: fc.integer({ min: 1, max: 5 }),
        whenFull: fc.constantFrom<WhenFull>('wait', 'drop'),
        steps: fc.array(fc.constantFrom('publish', 'take', 'latest', 'release', 'pause'), {
          maxLength: 40,
        }),
      }),
      ({ seed, slots, whenFull, steps }) =>
        sharing(async (world) => {
          const it = await stream(world, { slots, whenFull, byteLength: 64 });
          await play(world, it, steps);
        }, seed),
    ),
    { numRuns: 40 },
  ));

/** Both ends by a script; what can be done at once is done, and what was seen is compared with what was sent. */
async function play(world: ShareWorld, it: Stream, steps: readonly string[]): Promise<void> {
  const fences = new Map<number, ReturnType<FrameProducer['acquire']> | unknown>();
  const held: ReadableFrame[] = [];
  const seen: number[] = [];
  const take = (latest: boolean) => {
    const frame = it.open.frames.tryAcquire({ latest });
    if (frame === undefined) return;
    held.push(frame);
    seen.push(frame.sequence);
  };
  for (const step of steps) {
    if (step === 'publish') {
      const frame = it.producer.tryAcquire();
      if (frame === undefined) continue;
      const sequence = it.producer.published + 1;
      frame.bytes.fill(sequence & 0xff);
      fences.set(sequence, frame.publish());
    } else if (step === 'take') take(false);
    else if (step === 'latest') take(true);
    else if (step === 'release') held.shift()?.release();
    else await world.pause(1);
    for (const frame of held) {
      assert(
        frame.bytes.every((byte) => byte === (frame.sequence & 0xff)),
        'a held frame changed',
      );
    }
  }
  for (const frame of held) frame.release();
  it.producer.end();
  for (;;) {
    const frame = await world.run(it.open.frames.acquire());
    if (frame === undefined) break;
    seen.push(frame.sequence);
    frame.release();
  }
  await world.run(it.producer.drained());
  assert.deepEqual(
    seen,
    [...new Set(seen)].sort((a, b) => a - b),
    'in order and once',
  );
  assert.equal(fences.size, it.producer.published);
}
