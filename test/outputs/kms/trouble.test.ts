// What goes wrong with cards: nobody waits, nothing is counted twice, and all is well again afterwards.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { OutputConnector, Picture } from '../../../src/display/output.ts';
import { FakeCard } from '../../linux/drm/fake-card.ts';
import { counter, pictureOf, Rig, turns } from './rig.ts';

/** The frontend's patience, less a margin. */
const PATIENCE_MS = 2900;
const ROUND_MS = 2000;

/** A display that the card shows, with two pictures. */
async function shown() {
  const rig = new Rig();
  const connector = await rig.connect();
  const memory = [await rig.dumb(), await rig.dumb()];
  const pictures = memory.map((one) => pictureOf(one));
  connector.show(pictures[0]);
  await rig.refresh();
  assert.equal(connector.path, 'kms');
  return { rig, connector, memory, pictures };
}

test('when another program becomes master, flips go on in the viewer, and the card is had back', async () => {
  const { rig, connector, memory, pictures } = await shown();
  rig.fake.master = false;
  rig.fake.masterHeld = true;
  const flipped = counter();
  for (let flip = 1; flip <= 5; flip++) {
    connector.flip(pictures[flip % 2]!, flipped.onFlipped);
    await rig.pass(20);
    assert.equal(flipped.count, flip);
  }
  assert.equal(connector.path, 'browser');
  const { counters } = rig.output.status();
  assert.deepEqual([counters.masterLost, counters.master], [1, 0]);
  assert.equal(rig.complaints().length, 1);
  await rig.pass(2 * ROUND_MS + 10);
  assert.equal(connector.path, 'browser');
  rig.fake.masterHeld = false;
  await rig.pass(ROUND_MS + 10);
  await rig.refresh();
  assert.equal(connector.path, 'kms');
  assert.equal(rig.fake.properties(61).FB_ID, rig.fake.scannedOut[0]);
  connector.flip(pictures[0]!, flipped.onFlipped);
  await rig.refresh();
  assert.equal(flipped.count, 6);
  await rig.close(...memory);
});

test('without the master’s role at the start, the viewer shows until it is free', async () => {
  const fake = new FakeCard();
  fake.master = false;
  fake.masterHeld = true;
  const rig = new Rig(fake);
  const connector = await rig.connect();
  const memory = await rig.dumb();
  connector.show(pictureOf(memory));
  assert.equal(connector.path, 'browser');
  fake.masterHeld = false;
  await rig.pass(ROUND_MS + 10);
  await rig.refresh();
  assert.equal(connector.path, 'kms');
  await rig.close(memory);
});

test('a picture is given back at once while another program is master', async () => {
  const { rig, connector, memory, pictures } = await shown();
  rig.fake.master = false;
  rig.fake.masterHeld = true;
  // The other program shows something of its own.
  rig.fake.scannedOut[0] = 0;
  connector.flip(pictures[1]!, () => {});
  await rig.pass(20);
  await connector.retire(pictures[0]!);
  rig.fake.masterHeld = false;
  await rig.pass(ROUND_MS + 10);
  await rig.refresh();
  rig.fake.removedWhileShown = 0;
  await rig.close(...memory);
});

test('a cable that is pulled in the middle of a flip: the viewer goes on, and the monitor comes back', async () => {
  const { rig, connector, memory, pictures } = await shown();
  const flipped = counter();
  // The next round comes before the watchdog has anything to say.
  await rig.pass(ROUND_MS - 500);
  connector.flip(pictures[1]!, flipped.onFlipped);
  rig.fake.plugged[0] = false;
  await rig.pass(540);
  assert.deepEqual([flipped.count, rig.output.status().counters.stalled], [1, 0]);
  await rig.refresh();
  await rig.refresh();
  assert.equal(flipped.count, 1);
  assert.equal(connector.path, 'browser');
  assert.equal(rig.fake.scannedOut[0], 0);
  connector.flip(pictures[0]!, flipped.onFlipped);
  await rig.pass(20);
  assert.equal(flipped.count, 2);
  rig.fake.plugged[0] = true;
  await rig.pass(ROUND_MS + 10);
  await rig.refresh();
  assert.equal(connector.path, 'kms');
  assert.deepEqual([rig.output.status().counters.unplugged, flipped.count], [1, 2]);
  await rig.close(...memory);
});

test('a flip whose event never comes is complete before the frontend gives up; a late one brings the card back', async () => {
  const { rig, connector, memory, pictures } = await shown();
  const flipped = counter();
  connector.flip(pictures[1]!, flipped.onFlipped);
  await rig.pass(PATIENCE_MS);
  assert.equal(flipped.count, 1);
  assert.equal(connector.path, 'browser');
  assert.equal(rig.output.status().counters.stalled, 1);
  connector.flip(pictures[0]!, flipped.onFlipped);
  await rig.pass(20);
  assert.equal(flipped.count, 2);
  await rig.refresh();
  await rig.refresh();
  assert.equal(connector.path, 'kms');
  assert.equal(rig.fake.scannedOut[0], rig.fake.properties(61).FB_ID);
  connector.flip(pictures[1]!, flipped.onFlipped);
  await rig.refresh();
  assert.equal(flipped.count, 3);
  await rig.close(...memory);
});

test('a card that is busy with somebody else’s commit is asked again', async () => {
  const { rig, connector, memory, pictures } = await shown();
  const flipped = counter();
  rig.fake.atomicFails = 'EBUSY';
  connector.flip(pictures[1]!, flipped.onFlipped);
  await rig.pass(50);
  assert.equal(flipped.count, 0);
  rig.fake.atomicFails = undefined;
  await rig.pass(20);
  await rig.refresh();
  assert.deepEqual([flipped.count, connector.path], [1, 'kms']);
  await rig.close(...memory);
});

test('a card that goes away leaves the viewer', async () => {
  const { rig, connector, memory, pictures } = await shown();
  rig.fake.read = () => {
    throw new Error('ENODEV');
  };
  const flipped = counter();
  connector.flip(pictures[1]!, flipped.onFlipped);
  await rig.refresh();
  await rig.pass(20);
  assert.deepEqual([flipped.count, connector.path], [1, 'browser']);
  assert.match(rig.complaints()[0]!, /is gone; showing in the viewer only/);
  await rig.output[Symbol.asyncDispose]();
  for (const one of memory) await one.free();
});

test('a stride that the hardware would not choose is laid out raw where the card reads it', async () => {
  const fake = new FakeCard();
  fake.pitchAlignment = 256;
  const rig = new Rig(fake);
  const connector = await rig.connect();
  const stride = 650 * 4;
  const request = { domid: 1 as never, width: 650, height: 480, bitsPerPixel: 32, stride };
  const pages = Math.ceil((stride * 480) / 4096);
  const memory = await rig.output.allocate({ ...request, pages });
  assert(memory && memory.pages >= pages);
  assert.equal(fake.framebuffers.size, 0);
  assert(memory.bytes.every((byte) => byte === 0));
  connector.show(pictureOf(memory, { width: 650 }));
  await rig.refresh();
  assert.equal(fake.framebufferOn(0)?.stride, stride);
  fake.acceptsStride = (asked) => asked % 256 === 0;
  assert.equal(await rig.output.allocate({ ...request, pages }), undefined);
  assert.match(rig.complaints()[0]!, /reads rows of 2816 bytes, not the guest's 2600/);
  assert.equal(fake.dumb.size, 1, 'what was tried is given back');
  await rig.close(memory);
});

test('memory is zeroed and really mapped', async () => {
  const rig = new Rig();
  await rig.connect();
  const memory = await rig.dumb();
  memory.bytes[5] = 7;
  assert.equal(memory.bytes[5], 7);
  assert.equal(memory.bytes.filter((byte) => byte !== 0).length, 1);
  await rig.close(memory);
});

const step = fc.oneof(
  fc.record({
    kind: fc.constantFrom('flip', 'flip', 'show', 'retire'),
    picture: fc.nat({ max: 3 }),
  }),
  fc.record({
    kind: fc.constantFrom('refresh', 'refresh', 'wait', 'stop', 'pull', 'plug', 'lose', 'regain'),
    picture: fc.constant(0),
  }),
);

/** Another program was master for a while in which nothing was set, so that nobody noticed. */
const LOST_UNNOTICED = [
  { kind: 'show', picture: 0 },
  { kind: 'lose', picture: 0 },
  { kind: 'refresh', picture: 0 },
];

/** The monitor does not refresh while it goes dark: what it was told is checked before it is found busy. */
const STALLED_GOING_DARK = [
  { kind: 'show', picture: 1 },
  { kind: 'retire', picture: 1 },
  { kind: 'refresh', picture: 0 },
];

/** What a guest may do, on pictures of which some cannot be scanned out. */
class Guest {
  readonly #connector: OutputConnector;
  readonly #make: (index: number) => Picture;
  readonly #pictures = new Map<number, Picture>();
  readonly retiring: Promise<void>[] = [];
  flips = 0;
  flipped = 0;
  #mode = false;

  constructor(connector: OutputConnector, make: (index: number) => Picture) {
    this.#connector = connector;
    this.#make = make;
  }

  show(index: number | undefined): void {
    this.#mode = index !== undefined;
    this.#connector.show(index === undefined ? undefined : this.#picture(index));
    assert.equal(this.flipped, this.flips, 'show completes the flip');
  }

  flip(index: number): void {
    if (!this.#mode || this.flips > this.flipped) return;
    this.flips += 1;
    this.#connector.flip(this.#picture(index), () => {
      this.flipped += 1;
      assert(this.flipped <= this.flips, 'a flip completed twice');
    });
  }

  retire(index: number): void {
    const picture = this.#pictures.get(index);
    if (picture === undefined) return;
    this.#pictures.delete(index);
    this.retiring.push(this.#connector.retire(picture));
    this.show(undefined);
  }

  #picture(index: number): Picture {
    const picture = this.#pictures.get(index) ?? this.#make(index);
    this.#pictures.set(index, picture);
    return picture;
  }
}

async function play(rig: Rig, guest: Guest, { kind, picture }: { kind: string; picture: number }) {
  const { fake } = rig;
  switch (kind) {
    case 'flip':
      return guest.flip(picture);
    case 'show':
      return guest.show(picture);
    case 'retire':
      return guest.retire(picture);
    case 'stop':
      return guest.show(undefined);
    case 'refresh':
      return rig.refresh();
    case 'wait':
      return rig.pass(1500);
    case 'pull':
    case 'plug':
      fake.plugged[0] = kind === 'plug';
      return rig.pass(ROUND_MS + 10);
    case 'lose':
      fake.master = false;
      fake.masterHeld = true;
      return;
    case 'regain':
      fake.masterHeld = false;
      return rig.pass(ROUND_MS + 10);
  }
}

test('whatever happens, every flip completes once, and the books are empty at the end', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const fake = new FakeCard();
      fake.refusesImports = 'commit';
      const rig = new Rig(fake);
      const connector = await rig.connect();
      const memory = [await rig.dumb(), await rig.dumb(), await rig.dumb()];
      const foreign = rig.foreign();
      const guest = new Guest(connector, (index) => pictureOf(memory[index] ?? foreign));
      for (const one of steps) {
        await play(rig, guest, one);
        await turns(1);
      }
      await rig.pass(PATIENCE_MS);
      assert.equal(guest.flipped, guest.flips);
      fake.plugged[0] = true;
      fake.masterHeld = false;
      await rig.pass(2 * ROUND_MS + 10);
      for (let i = 0; i < 4; i++) await rig.refresh();
      await Promise.all(guest.retiring);
      rig.masterWasLost = steps.some(({ kind }) => kind === 'lose');
      await rig.close(...memory);
      assert.equal(fake.blobs.size, 1, 'only the mode of the console is left');
    }),
    { numRuns: 40, examples: [[LOST_UNNOTICED], [STALLED_GOING_DARK]] },
  );
});
