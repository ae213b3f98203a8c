import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XRGB8888 } from '../../../src/display/pixel-format.ts';
import { Card } from '../../../src/linux/drm/card.ts';
import { DisplayState } from '../../../src/linux/drm/display-state.ts';
import { addFramebuffer, removeFramebuffer } from '../../../src/linux/drm/framebuffers.ts';
import { describeCard } from '../../../src/linux/drm/report.ts';
import { close, memfdCreate } from '../../../src/posix/libc.ts';
import { SysError } from '../../../src/runtime/errors.ts';
import { CONSOLE_FRAMEBUFFER, CRTCS, FakeCard, PLANES } from './fake-card.ts';

const size = { width: 640, height: 480 };

test('a card tells what it has: connectors by the kernel’s names, with their modes', () => {
  const fake = new FakeCard();
  fake.plugged[1] = false;
  using card = new Card(fake);
  assert.equal(card.title, 'card7 (fakems)');
  const [first, second] = card.connectors({ probe: true });
  assert.deepEqual([first?.name, first?.status], ['Virtual-1', 'connected']);
  assert.deepEqual(
    first?.modes.map(({ name, width, height, preferred }) => ({ name, width, height, preferred })),
    [
      { name: '800x600', width: 800, height: 600, preferred: true },
      { name: '640x480', width: 640, height: 480, preferred: false },
    ],
  );
  assert.deepEqual(
    [second?.name, second?.status, second?.modes.length],
    ['Virtual-2', 'disconnected', 0],
  );
  assert.equal(card.planeProperties(PLANES[0]!).value('type'), 1n);
  assert.throws(() => card.planeProperties(PLANES[0]!).id('rotation'), { errnoName: 'ENOENT' });
});

test('the report names what people need, and leaves the card to others', () => {
  const fake = new FakeCard();
  const report = describeCard(fake);
  fake[Symbol.dispose]();
  assert.deepEqual(report, {
    path: '/dev/dri/card7',
    driver: 'fakems',
    atomic: true,
    dumbBuffers: true,
    prime: { imports: true, exports: true },
    connectors: [
      { name: 'Virtual-1', status: 'connected', modes: 2 },
      { name: 'Virtual-2', status: 'connected', modes: 2 },
    ],
  });
  assert.equal(fake.master, false);
});

test('one dma-buf is one handle, which goes with its last user', () => {
  const fake = new FakeCard();
  using card = new Card(fake);
  const fd = memfdCreate('foreign', { context: 'a test' });
  const [first, second] = [card.buffers.use(fd), card.buffers.use(fd)];
  assert.equal(first.handle, second.handle);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assert.deepEqual([fake.imported.size, fake.count('DRM_IOCTL_GEM_CLOSE')], [1, 0]);
  second[Symbol.dispose]();
  assert.deepEqual([fake.imported.size, card.buffers.handles], [0, 0]);
  close(fd, { context: 'a test' });
});

test('a dumb buffer that comes back as a dma-buf is never closed as an import', async () => {
  const fake = new FakeCard();
  using card = new Card(fake);
  const { memory, handle } = card.buffers.createDumb({ ...size, bitsPerPixel: 32 });
  const used = card.buffers.use(memory.fd!);
  assert.deepEqual([used.handle, used.own], [handle, true]);
  used[Symbol.dispose]();
  assert.equal(fake.count('DRM_IOCTL_GEM_CLOSE'), 0);
  const view = memory.bytes;
  view[0] = 1;
  assert.equal((await memory.free()).heldPages, 0);
  assert.equal(view[0], 0, 'our view is revoked');
  assert.deepEqual([fake.dumb.size, card.buffers.handles], [0, 0]);
});

test('what the card showed before is put back, and what is gone is switched off', () => {
  const fake = new FakeCard();
  using card = new Card(fake);
  const before = DisplayState.read(card);
  assert.deepEqual(fake.properties(PLANES[0]!).FB_ID, CONSOLE_FRAMEBUFFER);
  before.restore(card);
  assert.equal(fake.scannedOut[0], CONSOLE_FRAMEBUFFER);
  assert.equal(fake.blobs.size, 1, 'the mode was a blob for a moment');
  const { handle, pitch } = card.buffers.createDumb({ ...size, bitsPerPixel: 32 });
  const { fourcc } = XRGB8888;
  const framebuffer = addFramebuffer(fake, { ...size, handle, fourcc, stride: pitch, offset: 0 });
  fake.framebuffers.set(framebuffer, { ...fake.framebuffers.get(framebuffer)!, width: 1 });
  removeFramebuffer(fake, framebuffer);
  assert.equal(fake.framebuffers.size, 0);
  assert.equal(fake.properties(CRTCS[0]!).ACTIVE, 1);
});

test('a call that a signal cut short is repeated', () => {
  const fake = new FakeCard();
  using card = new Card(fake);
  const { ioctl } = fake;
  let interruptions = 3;
  fake.ioctl = function (request, context) {
    if (interruptions-- > 0) throw Object.assign(interrupted(), { request });
    return ioctl.call(this, request, context);
  };
  assert.equal(card.becomeMaster(), true);
});

function interrupted(): Error {
  return new SysError({ call: 'ioctl', errnoName: 'EINTR', context: 'a test' });
}
