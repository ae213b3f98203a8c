// The viewer page in a real browser, against the real server, with pictures that the test draws.

import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import type { Page } from 'playwright-core';
import type { Picture } from '../../src/display/output.ts';
import { RGB565, XRGB8888, YUYV } from '../../src/display/pixel-format.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { ViewerServer } from '../../src/server/server.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { noisyPicture } from '../outputs/pictures.ts';
import { ScriptedView } from '../server/scripted-view.ts';
import { Chromium, canvasDigest, digestOf } from './chromium.ts';
import { SlowLink } from './slow-link.ts';

const runtime = systemRuntime();
const token = 'browser-test-token';
let browser: Chromium;

before(async () => {
  browser = await Chromium.launch();
});

after(async () => {
  await browser[Symbol.asyncDispose]();
});

const BUTTON_LEFT = 0x110;
const BUTTON_RIGHT = 0x111;

function startServer(view: ScriptedView, port = 0): Promise<ViewerServer> {
  return ViewerServer.start(runtime, { view, host: '127.0.0.1', port, token });
}

/** A server with one guest, 1, that shows noise of 640x480. */
async function serve(context: TestContext) {
  const view = new ScriptedView(runtime);
  const guest = view.addGuest(1, 'paint');
  const screen = await view.connect(1);
  const picture = noisyPicture(1, { width: 640, height: 480 });
  screen.show(picture);
  const server = await startServer(view);
  context.after(() => server[Symbol.asyncDispose]());
  return { view, guest, screen, picture, server };
}

async function shows(page: Page, picture: Picture, domid: number): Promise<boolean> {
  return isDeepStrictEqual(await canvasDigest(page, { domid }), digestOf(picture));
}

function untilShown(page: Page, picture: Picture, domid = 1): Promise<void> {
  return until(runtime, () => shows(page, picture, domid), {
    what: `the picture of guest ${domid} on the page`,
    timeoutMs: 20_000,
    intervalMs: 20,
  });
}

/** The place on the page of a pixel of guest 1's screen, in its middle. */
async function placeOf(page: Page, x: number, y: number) {
  const box = await page.getByTestId('screen').boundingBox();
  assert(box);
  return {
    x: box.x + ((x + 0.5) / 640) * box.width,
    y: box.y + ((y + 0.5) / 480) * box.height,
  };
}

test('the canvas has exactly the guest’s pixels, as the picture changes, flips, changes size and format', async (context) => {
  const { server, screen, picture } = await serve(context);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  picture.bytes.fill(0x5a, 100_000, 300_000);
  await untilShown(page, picture);
  for (const [seed, options] of [
    [2, { width: 640, height: 480 }],
    [3, { width: 801, height: 603, format: RGB565, padding: 32 }],
    [4, { width: 320, height: 200, format: YUYV }],
    [5, { width: 1920, height: 1080, format: XRGB8888 }],
  ] as const) {
    const next = noisyPicture(seed, options);
    let flipped = false;
    screen.flip(next, () => {
      flipped = true;
    });
    await untilShown(page, next);
    assert(flipped);
    next.bytes.fill(seed, 0, 5000);
    await untilShown(page, next);
  }
});

test('over a slow link the pixels come compressed, and are exact', async (context) => {
  const { server, screen } = await serve(context);
  const link = await SlowLink.open(runtime, { port: server.port, bytesPerMs: 4096 });
  context.after(() => link[Symbol.asyncDispose]());
  const page = await browser.open(`http://127.0.0.1:${link.port}/?token=${token}`);
  const updates: number[] = [];
  for (let round = 0; round < 6; round++) {
    const before = link.bytes;
    const next = noisyPicture(round, { width: 800, height: 600 });
    next.bytes.fill(round, 1000);
    screen.show(next);
    await untilShown(page, next);
    updates.push(link.bytes - before);
  }
  assert(updates[0]! > 800 * 600 * 4, `the first update took ${updates[0]} bytes`);
  assert(updates.at(-1)! < 200_000, `the last update took ${updates.at(-1)} bytes`);
});

test('the token is taken out of the address bar, and a reload still works', async (context) => {
  const { server, picture } = await serve(context);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  assert.equal(page.url(), `http://127.0.0.1:${server.port}/`);
  await page.reload();
  await untilShown(page, picture);
});

test('a guest that meets its limits is said to be slowed down, or refused, in words, for as long as that lasts', async (context) => {
  const { server, guest, view, picture } = await serve(context);
  guest.throttled.requestsPerSecond = 7;
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  const notice = page.locator('.limited');
  assert.equal(await notice.textContent(), '', 'what is over is not said');
  guest.throttled.requestsPerSecond = 8;
  guest.refused['over-budget-buffers'] = 1;
  guest.refused['unknown-operation'] = 1;
  view.changed();
  await page.getByText('Being slowed down').waitFor();
  assert.equal(
    await notice.textContent(),
    'Being slowed down: it asks for more than 4,000 display requests a second. ' +
      `Refused more: its budget is ${DEFAULT_BUDGET.buffers} buffers.`,
  );
  await until(runtime, async () => (await notice.textContent()) === '', {
    what: 'the end of the notice',
    timeoutMs: 20_000,
    intervalMs: 100,
  });
  const slowed = page.locator('[data-held="slowed down: requestsPerSecond"]');
  assert.equal(await slowed.textContent(), '8', 'the number stays');
});

test('without the right token the page says what to do', async (context) => {
  const { server } = await serve(context);
  const page = await browser.open(`http://127.0.0.1:${server.port}/?token=wrong`);
  await page.getByText('the token is wrong').waitFor();
  assert.equal(await page.getByTestId('link').textContent(), 'refused');
});

test('keys go to the guest that has the focus, by their place on the keyboard', async (context) => {
  const { server, guest, picture } = await serve(context);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  await page.keyboard.press('a');
  await page.getByTestId('screen').focus();
  const { events } = guest.input;
  await page.keyboard.down('ShiftLeft');
  await page.keyboard.press('KeyA');
  await page.keyboard.up('ShiftLeft');
  await page.keyboard.press('Tab');
  await page.keyboard.press('F5');
  await until(runtime, () => events.length >= 8, { what: 'the keys' });
  assert.deepEqual(events, [
    'key 42 down',
    'key 30 down',
    'key 30 up',
    'key 42 up',
    'key 15 down',
    'key 15 up',
    'key 63 down',
    'key 63 up',
  ]);
});

test('a held key repeats, and is released once when the focus goes', async (context) => {
  const { server, guest, picture } = await serve(context);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  await page.getByTestId('screen').focus();
  const { events } = guest.input;
  await page.keyboard.down('KeyW');
  await page.keyboard.down('KeyW');
  await page.keyboard.down('KeyD');
  await until(runtime, () => events.length >= 3, { what: 'the keys' });
  await page.getByTestId('screen').blur();
  await until(runtime, () => events.length >= 5, { what: 'the releases' });
  const down = ['key 17 down', 'key 17 down', 'key 32 down'];
  assert.deepEqual(events, [...down, 'key 17 up', 'key 32 up']);
});

test('Ctrl+Alt+G gives the keyboard back to the page with nothing left down', async (context) => {
  const { server, guest, picture } = await serve(context);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  await page.getByTestId('screen').focus();
  await page.keyboard.press('Control+Alt+KeyG');
  const { events } = guest.input;
  await until(runtime, () => events.length >= 4, { what: 'the releases' });
  assert.deepEqual(events.slice(0, 2), ['key 29 down', 'key 56 down']);
  assert.deepEqual(events.slice(2).sort(), ['key 29 up', 'key 56 up']);
  await page.keyboard.press('Tab');
  const focused = await page.evaluate<string>('document.activeElement.tagName');
  assert.equal(focused, 'BUTTON');
});

test('a page that is closed with a key down leaves none down', async (context) => {
  const { server, guest, picture } = await serve(context);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  await page.getByTestId('screen').focus();
  await page.keyboard.down('KeyQ');
  await until(runtime, () => guest.input.events.length === 1, { what: 'the key' });
  await page.close();
  await until(runtime, () => guest.input.events.includes('key 16 up'), { what: 'the release' });
});

test('the pointer goes to the guest’s pixel, with its buttons and its wheel', async (context) => {
  const { server, guest, picture } = await serve(context);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  const { events } = guest.input;
  const first = await placeOf(page, 0, 0);
  await page.mouse.move(first.x, first.y);
  await page.mouse.down();
  const last = await placeOf(page, 639, 479);
  await page.mouse.move(last.x, last.y);
  await page.mouse.up();
  const middle = await placeOf(page, 320, 100);
  await page.mouse.move(middle.x, middle.y);
  await page.mouse.click(middle.x, middle.y, { button: 'right' });
  await page.mouse.wheel(0, -250);
  await page.mouse.wheel(0, -50);
  await page.mouse.wheel(0, 100);
  await until(runtime, () => events.filter((event) => event.startsWith('wheel')).length >= 3, {
    what: 'the wheel',
  });
  const seen = events.filter((event, index) => event !== events[index - 1]);
  assert.deepEqual(seen, [
    'position 0 0',
    `key ${BUTTON_LEFT} down`,
    'position 639 479',
    `key ${BUTTON_LEFT} up`,
    'position 320 100',
    `key ${BUTTON_RIGHT} down`,
    'position 320 100',
    `key ${BUTTON_RIGHT} up`,
    'wheel 2',
    'wheel 1',
    'wheel -1',
  ]);
});

test('a pointer without the focus disturbs no guest', async (context) => {
  const { server, guest, picture } = await serve(context);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  const place = await placeOf(page, 10, 10);
  await page.mouse.move(place.x, place.y);
  await page.mouse.wheel(0, 300);
  await page.getByTestId('screen').focus();
  await page.keyboard.press('KeyX');
  await until(runtime, () => guest.input.events.length >= 2, { what: 'the key' });
  assert.deepEqual(guest.input.events, ['key 45 down', 'key 45 up']);
});

test('two pages see the same guest, and one page two guests', async (context) => {
  const { server, view, picture } = await serve(context);
  const [one, other] = await Promise.all([browser.open(server.url), browser.open(server.url)]);
  view.addGuest(2, 'second');
  const second = noisyPicture(9, { width: 320, height: 240, format: RGB565 });
  (await view.connect(2)).show(second);
  for (const page of [one, other]) {
    await untilShown(page, picture);
    await untilShown(page, second, 2);
  }
});

test('a guest with two displays shows both, each with its own picture', async (context) => {
  const { server, view, picture } = await serve(context);
  const second = noisyPicture(8, { width: 400, height: 300, format: RGB565 });
  (await view.connect(1, 1)).show(second);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  const both = async () =>
    isDeepStrictEqual(await canvasDigest(page, { domid: 1, connector: 1 }), digestOf(second));
  await until(runtime, both, { what: 'the second display', timeoutMs: 20_000 });
});

test('a page finds its server again after the server went and came back', async (context) => {
  const view = new ScriptedView(runtime);
  view.addGuest(1, 'paint');
  const screen = await view.connect(1);
  const picture = noisyPicture(1, { width: 320, height: 240 });
  screen.show(picture);
  const first = await startServer(view);
  const { port } = first;
  const page = await browser.open(first.url);
  await untilShown(page, picture);
  await first[Symbol.asyncDispose]();
  await page.getByText('connection lost').waitFor();
  picture.bytes.fill(0x77);
  const second = await startServer(view, port);
  context.after(() => second[Symbol.asyncDispose]());
  await untilShown(page, picture);
  assert.equal(await page.getByTestId('link').textContent(), 'live');
});

test('a guest that goes and one that comes are seen on the page', async (context) => {
  const { server, view, screen, picture } = await serve(context);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  await screen[Symbol.asyncDispose]();
  await page.getByText('No display').waitFor();
  const again = await view.connect(1);
  again.show(picture);
  await untilShown(page, picture);
  again.show(undefined);
  await page.getByText('The guest shows nothing yet.').waitFor();
  view.guests.clear();
  await again[Symbol.asyncDispose]();
  await page.getByText('No guest has a display yet.').waitFor();
});

test('a page that nobody sees asks for nothing, and catches up when it is seen', async (context) => {
  const { server, screen, picture } = await serve(context);
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  // A headless page is always visible, so what a browser tells a hidden one is told by hand.
  const becomes = (hidden: boolean) =>
    page.evaluate(`
      Object.defineProperty(document, 'hidden', { configurable: true, value: ${hidden} });
      document.dispatchEvent(new Event('visibilitychange'));`);
  await becomes(true);
  await until(runtime, () => screen.viewers === 0, { what: 'the end of the watching' });
  picture.bytes.fill(0x33);
  await becomes(false);
  await untilShown(page, picture);
});

test('a person stops, sees zeros, and restarts a guest where the host offers it', async (context) => {
  const { server, view, picture } = await serve(context);
  view.offerControls();
  const page = await browser.open(server.url);
  await untilShown(page, picture);
  const pages = page.locator('[data-held="pages"]');
  assert.equal(await pages.textContent(), '2025');
  await page.getByRole('button', { name: 'Crash' }).click();
  await page.getByText('crashed').waitFor();
  for (const count of await page.locator('[data-held]').allTextContents()) assert.equal(count, '0');
  assert(await page.getByRole('button', { name: 'Stop' }).isDisabled());
  await page.getByRole('button', { name: 'Restart' }).click();
  await page.getByText('connected').waitFor();
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByText('stopped').waitFor();
  assert.deepEqual(view.acts, ['crash 1', 'restart 1', 'stop 1']);
});

test('with a token to look at one guest, the page shows that guest, and has no hands', async (context) => {
  const { view, guest, picture } = await serve(context);
  view.addGuest(2, 'secret');
  view.offerControls();
  const limited = 'browser-test-token-to-look';
  const server = await ViewerServer.start(runtime, {
    view,
    host: '127.0.0.1',
    port: 0,
    token,
    limitedTokens: [{ token: limited, guests: ['paint'], viewOnly: true }],
  });
  context.after(() => server[Symbol.asyncDispose]());
  const page = await browser.open(`http://127.0.0.1:${server.port}/?token=${limited}`);
  await untilShown(page, picture);
  assert.equal(await page.locator('article.guest').count(), 1);
  assert.equal(await page.getByText('secret').count(), 0);
  assert.equal(await page.locator('[data-action]').count(), 0);
  assert.equal(await page.locator('.hint').textContent(), 'View only');
  const { x, y } = await placeOf(page, 10, 10);
  await page.mouse.click(x, y);
  await page.keyboard.type('abc');
  picture.bytes.fill(7, 0, 4000);
  await untilShown(page, picture);
  assert.equal(await page.getByTestId('link').textContent(), 'live');
  assert.deepEqual(guest.input.events, []);
});
