import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../../../src/runtime/errors.ts';
import { CRTCS, FakeCard, PLANES } from '../../linux/drm/fake-card.ts';
import { counter, pictureOf, Rig } from './rig.ts';

test('a display is shown on the connector that has its unique-id for a name', async () => {
  const rig = new Rig();
  const connector = await rig.connect('Virtual-2');
  const memory = await rig.dumb();
  connector.show(pictureOf(memory));
  assert.equal(connector.path, 'kms');
  await rig.refresh();
  assert.equal(rig.fake.framebufferOn(1)?.width, 640);
  const { CRTC_W, CRTC_H, SRC_W, CRTC_ID } = rig.fake.properties(PLANES[1]!);
  assert.deepEqual([CRTC_W, CRTC_H, SRC_W, CRTC_ID], [640, 480, 640 * 65536, CRTCS[1]]);
  assert.deepEqual(rig.output.status().monitors, [
    { connector: 'Virtual-2', connected: true, domid: 1, uniqueId: 'Virtual-2', showing: true },
  ]);
  assert.equal(rig.output.screen(1 as never, 0)?.shown?.width, 640, 'the viewer has it too');
  await rig.close(memory);
});

test('the configuration names the connector of a display', async () => {
  const connectors = new Map([['screen-1', 'Virtual-2']]);
  const rig = new Rig(new FakeCard(), { connectors });
  const memoryless = await rig.connect('screen-1');
  memoryless.show(undefined);
  assert.equal(rig.output.status().monitors[0]?.connector, 'Virtual-2');
  await rig.close();
  const wrong = new Map([['screen-1', 'HDMI-A-9']]);
  assert.throws(() => new Rig(new FakeCard(), { connectors: wrong }), UsageError);
});

test('a flip is one ioctl and one read, copies nothing, and is complete when it is on the screen', async () => {
  const rig = new Rig();
  const connector = await rig.connect();
  const memory = [await rig.dumb(), await rig.dumb()];
  const pictures = memory.map((one) => pictureOf(one));
  connector.show(pictures[0]);
  await rig.refresh();
  const { count, onFlipped } = counter();
  assert.equal(count, 0);
  const flipped = counter();
  connector.flip(pictures[1]!, flipped.onFlipped);
  await rig.refresh();
  assert.equal(flipped.count, 1);
  onFlipped();
  rig.fake.calls.length = 0;
  rig.fake.reads = 0;
  for (let flip = 1; flip <= 50; flip++) {
    connector.flip(pictures[flip % 2]!, flipped.onFlipped);
    assert.equal(flipped.count, flip, 'complete before the refresh');
    await rig.refresh();
    assert.equal(flipped.count, flip + 1);
    assert.equal(rig.output.screen(1 as never, 0)?.shown, pictures[flip % 2]);
  }
  assert.deepEqual(new Set(rig.fake.calls), new Set(['DRM_IOCTL_MODE_ATOMIC']));
  assert.equal(rig.fake.calls.length, 50);
  assert.equal(rig.fake.reads, 50);
  assert.equal(connector.bytesCopied, 0);
  await rig.close(...memory);
});

test('the events of two displays that come in one read find their own flips', async () => {
  const rig = new Rig();
  const connectors = [await rig.connect('Virtual-1'), await rig.connect('Virtual-2', { index: 1 })];
  const memory = [await rig.dumb(), await rig.dumb()];
  const flipped = connectors.map(() => counter());
  for (const [i, connector] of connectors.entries()) connector.show(pictureOf(memory[i]));
  await rig.refresh();
  rig.fake.reads = 0;
  for (const [i, connector] of connectors.entries()) {
    connector.flip(pictureOf(memory[i]), flipped[i]!.onFlipped);
  }
  await rig.refresh();
  assert.deepEqual([flipped.map(({ count }) => count), rig.fake.reads], [[1, 1], 1]);
  await rig.close(...memory);
});

test('memory of another driver is imported once, however many pictures lie in it', async () => {
  const rig = new Rig();
  const connector = await rig.connect();
  const memory = rig.foreign();
  const [first, second] = [
    pictureOf(memory),
    pictureOf(memory, { height: 240, offset: 640 * 960 }),
  ];
  connector.show(first);
  assert.equal(connector.path, 'kms-import');
  await rig.refresh();
  connector.show(second);
  const retired = connector.retire(first);
  await rig.refresh();
  await retired;
  assert.deepEqual([rig.fake.imported.size, rig.fake.framebuffers.size], [1, 1]);
  assert.equal(rig.fake.framebufferOn(0)?.offset, 640 * 960);
  connector.show(undefined);
  const gone = connector.retire(second);
  await rig.refresh();
  await gone;
  assert.deepEqual([rig.fake.imported.size, rig.fake.framebuffers.size], [0, 0]);
  await rig.close();
});

for (const refusal of ['test', 'commit'] as const) {
  test(`what the card refuses by ${refusal} goes on in the viewer, with one line for its kind`, async () => {
    const fake = new FakeCard();
    fake.refusesImports = refusal;
    const rig = new Rig(fake);
    const connector = await rig.connect();
    const pictures = [rig.foreign(), rig.foreign()].map((memory) => pictureOf(memory));
    const flipped = counter();
    for (const picture of pictures) {
      connector.show(picture);
      assert.equal(connector.path, 'browser');
      connector.flip(picture, flipped.onFlipped);
      await rig.pass(20);
      await rig.refresh();
    }
    assert.equal(flipped.count, 2);
    assert.equal(rig.complaints().length, 1);
    assert.match(
      rig.complaints()[0]!,
      /cannot scan out an imported .* buffer; showing it in the viewer/,
    );
    assert.equal(rig.output.status().counters.refused, 2);
    for (const picture of pictures) await connector.retire(picture);
    await rig.close();
  });
}

test('a refusal in the middle leaves the monitor dark, and completes the flip', async () => {
  const fake = new FakeCard();
  fake.refusesImports = 'commit';
  const rig = new Rig(fake);
  const connector = await rig.connect();
  const memory = await rig.dumb();
  connector.show(pictureOf(memory));
  await rig.refresh();
  const flipped = counter();
  const refused = pictureOf(rig.foreign());
  connector.flip(refused, flipped.onFlipped);
  assert.equal(connector.path, 'browser');
  await rig.refresh();
  await rig.pass(20);
  assert.equal(flipped.count, 1);
  assert.equal(rig.fake.scannedOut[0], 0);
  connector.show(pictureOf(memory));
  await rig.refresh();
  assert.equal(connector.path, 'kms');
  await rig.close(memory);
});

test('memory that is only mapped goes to the viewer, and the log says what to set', async () => {
  const rig = new Rig();
  const connector = await rig.connect();
  connector.show(pictureOf(undefined));
  assert.equal(connector.path, 'browser');
  assert.match(rig.complaints()[0]!, /be-alloc=1/);
  await rig.close();
});

test('a picture is retired when the card has left it, and not before', async () => {
  const rig = new Rig();
  const connector = await rig.connect();
  const memory = [await rig.dumb(), await rig.dumb()];
  const [first, second] = memory.map((one) => pictureOf(one));
  connector.show(first);
  await rig.refresh();
  connector.flip(second!, () => {});
  let gone = false;
  const retired = connector.retire(first!).then(() => {
    gone = true;
  });
  await rig.pass(10);
  assert.equal(gone, false);
  assert.equal(rig.fake.framebuffers.size, 2);
  await rig.refresh();
  await retired;
  assert.equal(rig.fake.framebuffers.size, 1);
  await rig.close(...memory);
});

test('showing something else completes the flip at once; its late event completes no other', async () => {
  const rig = new Rig();
  const connector = await rig.connect();
  const memory = [await rig.dumb(), await rig.dumb(), await rig.dumb()];
  const [first, second, third] = memory.map((one) => pictureOf(one));
  connector.show(first);
  await rig.refresh();
  const [cut, next] = [counter(), counter()];
  connector.flip(second!, cut.onFlipped);
  connector.show(first);
  assert.equal(cut.count, 1);
  connector.flip(third!, next.onFlipped);
  await rig.refresh();
  assert.equal(next.count, 0, 'the event of the flip that was cut short');
  await rig.refresh();
  await rig.refresh();
  assert.deepEqual([cut.count, next.count], [1, 1]);
  await rig.close(...memory);
});

test('a second claimant of a connector gets the viewer, until the first has left', async () => {
  const rig = new Rig();
  const first = await rig.connect('Virtual-1');
  const second = await rig.connect('Virtual-1', { domid: 2 });
  first.show(undefined);
  second.show(pictureOf(rig.foreign()));
  assert.equal(second.path, 'browser');
  const flipped = counter();
  second.flip(pictureOf(rig.foreign()), flipped.onFlipped);
  await rig.pass(20);
  assert.equal(flipped.count, 1);
  assert.match(rig.complaints()[0]!, /shows display Virtual-1 of domain 1/);
  assert.equal(rig.output.status().viewerOnly.length, 1);
  await second[Symbol.asyncDispose]();
  await first[Symbol.asyncDispose]();
  assert.equal(rig.output.status().viewerOnly.length, 0);
  const third = await rig.connect('Virtual-1', { domid: 2 });
  third.show(undefined);
  assert.deepEqual(
    rig.output.status().monitors.map(({ domid }) => domid),
    [2],
  );
  await rig.close();
});

test('a display that no connector is named for has the viewer', async () => {
  const rig = new Rig();
  const connector = await rig.connect('somewhere');
  assert.equal(connector.path, 'browser');
  assert.match(rig.complaints()[0]!, /no connector somewhere; it has Virtual-1, Virtual-2/);
  assert.equal(await rig.output.allocate({} as never), undefined);
  await connector[Symbol.asyncDispose]();
  await rig.close();
});

test('a picture smaller than every mode lies in the middle of the preferred one; a larger one has the viewer', async () => {
  const rig = new Rig();
  const connector = await rig.connect();
  const memory = [await rig.dumb({ width: 700, height: 500 }), await rig.dumb({ width: 900 })];
  connector.show(pictureOf(memory[0], { width: 700, height: 500 }));
  const { CRTC_X, CRTC_Y, CRTC_W } = rig.fake.properties(PLANES[0]!);
  assert.deepEqual([CRTC_X, CRTC_Y, CRTC_W], [50, 50, 700]);
  await rig.refresh();
  connector.show(pictureOf(memory[1], { width: 900 }));
  assert.equal(connector.path, 'browser');
  assert.match(rig.complaints()[0]!, /no mode as large as the picture of 900x480/);
  await rig.close(...memory);
});

test('a closed connector is dark, and its flip is not completed', async () => {
  const rig = new Rig();
  const connector = await rig.connect();
  const memory = await rig.dumb();
  connector.show(pictureOf(memory));
  await rig.refresh();
  const flipped = counter();
  connector.flip(pictureOf(memory), flipped.onFlipped);
  const closed = connector[Symbol.asyncDispose]();
  await rig.refresh();
  await rig.refresh();
  await closed;
  assert.equal(flipped.count, 0);
  assert.deepEqual([rig.fake.scannedOut[0], rig.fake.framebuffers.size], [0, 0]);
  assert.equal(rig.output.screen(1 as never, 0), undefined);
  await rig.close(memory);
});

test('a card that cannot set modes atomically is refused with a remedy', () => {
  const fake = new FakeCard();
  fake.atomic = false;
  assert.throws(() => new Rig(fake), /fakems cannot set modes atomically.*--output browser/);
  assert.equal(fake.closed, true);
});
