// The main job end to end, as a person meets it: the demo in a process of its own, and its page in a real
// Chromium. What the canvas must show is computed here by the guest's own program, into private memory.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import type { Page } from 'playwright-core';
import type { GuestStatus } from '../../src/daemon/status.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { DemoProcess, type Pixels } from '../cli/demo-process.ts';
import { expectedSheet, SHEET } from '../cli/expected-sheet.ts';
import { type CanvasDigest, Chromium, canvasDigest } from './chromium.ts';

const runtime = systemRuntime();
const NAME = 'guest-2';
const KEY_H = 35;
const KEY_I = 23;
const KEY_LEFTSHIFT = 42;
const BTN_LEFT = 0x110;

let demo: DemoProcess;
let browser: Chromium;

before(async () => {
  demo = await DemoProcess.start();
  browser = await Chromium.launch();
});
after(async () => {
  await browser[Symbol.asyncDispose]();
  assert.equal(await demo.stop(), 0);
});

function digest({ width, height, data }: Pixels): CanvasDigest {
  return { width, height, sha256: createHash('sha256').update(data).digest('hex') };
}

async function untilCanvasShows(page: Page, { domid }: GuestStatus, pixels: Pixels): Promise<void> {
  const expected = digest(pixels);
  await until(
    runtime,
    async () => isDeepStrictEqual(await canvasDigest(page, { domid }), expected),
    { what: "the guest's picture on the canvas", timeoutMs: 30_000, intervalMs: 50 },
  );
}

/** Where on the page a pixel of the guest's screen is, in its middle. */
async function placeOf(page: Page, { domid }: GuestStatus, x: number, y: number) {
  const box = await page.locator(`[data-domid="${domid}"] canvas`).boundingBox();
  assert(box);
  return {
    x: box.x + ((x + 0.5) / SHEET.width) * box.width,
    y: box.y + ((y + 0.5) / SHEET.height) * box.height,
  };
}

test('a person sees the guest, types and draws on it, and the guest answers, to the pixel', async () => {
  const guest = await demo.ready(NAME);
  const page = await browser.open(demo.url.href, { width: 2400, height: 1200 });
  await untilCanvasShows(page, guest, expectedSheet(NAME));

  const from = await placeOf(page, guest, 300, 300);
  const to = await placeOf(page, guest, 420, 300);
  await page.mouse.move(from.x, from.y);
  await page.mouse.down();
  await page.mouse.move(to.x, to.y);
  await page.mouse.up();
  await page.keyboard.press('Shift+KeyH');
  await page.keyboard.press('KeyI');
  await untilCanvasShows(
    page,
    guest,
    expectedSheet(NAME, (sketch) => {
      sketch.position(300, 300);
      sketch.key(BTN_LEFT, true);
      sketch.position(420, 300);
      sketch.key(BTN_LEFT, false);
      sketch.key(KEY_LEFTSHIFT, true);
      sketch.key(KEY_H, true);
      sketch.key(KEY_LEFTSHIFT, false);
      sketch.key(KEY_I, true);
    }),
  );
  await page.close();
});

test('a person crashes a guest, sees that it holds nothing, and starts it again', async () => {
  const guest = await demo.ready(NAME);
  const page = await browser.open(demo.url.href);
  const card = page.locator(`[data-domid="${guest.domid}"]`);
  await card.getByRole('button', { name: 'Crash' }).click();
  await card.getByText('crashed').waitFor();
  const { held } = (await demo.guest(NAME))!;
  assert(
    Object.values(held).every((amount) => amount === 0),
    JSON.stringify(held),
  );
  await card.getByRole('button', { name: 'Restart' }).click();
  const anew = await demo.ready(NAME);
  assert.notEqual(anew.domid, guest.domid);
  await untilCanvasShows(page, anew, expectedSheet(NAME));
  await page.close();
});
