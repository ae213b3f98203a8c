// `share view` end to end: one process draws the test card into shared slots, another one shows them in a real
// Chromium, and the page says when the share is over.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { PNG } from 'pngjs';
import type { DaemonStatus } from '../../src/daemon/status.ts';
import { until } from '../../src/runtime/runtime.ts';
import { onShareMachine, runtime } from '../cli/share-commands.ts';
import { Chromium } from './chromium.ts';

/** The bars of the test card from left to right, at 75 %. */
const BARS = ['bfbfbf', 'bfbf00', '00bfbf', '00bf00', 'bf00bf', 'bf0000', '0000bf'];
const WIDTH = 640;
const HEIGHT = 480;
const CARD = ['--test-card', `${WIDTH}x${HEIGHT}@30`];

/** Colours of the screenshot in a row through the upper part of the bars. */
function barsOf(image: PNG): string[] {
  const y = Math.floor(image.height * 0.25);
  const inset = image.width / 6;
  const bar = (image.width - 2 * inset) / BARS.length;
  return BARS.map((_, index) => {
    const x = Math.floor(inset + (index + 0.15) * bar);
    return image.data.subarray((y * image.width + x) * 4).toString('hex', 0, 3);
  });
}

async function showsBars(page: Page): Promise<void> {
  let seen: string[] = [];
  await until(
    runtime,
    async () => {
      const canvas = page.locator('canvas');
      if ((await canvas.count()) !== 1) return false;
      seen = barsOf(PNG.sync.read(await canvas.screenshot()));
      return BARS.every((colour, index) => colour === seen[index]);
    },
    { what: 'the bars of the test card', timeoutMs: 30_000, intervalMs: 200 },
  ).catch((error: unknown) => {
    assert.deepEqual(seen, BARS);
    throw error;
  });
}

test('a test card of one domain is seen live in the page of another, and so is its end', () =>
  onShareMachine(async (machine) => {
    await using browser = await Chromium.launch();
    const listen = ['--listen', '127.0.0.1:0', '--json'];
    const viewing = machine.command('view', 'screen', '--from', 'cam', ...listen);
    const { url } = JSON.parse(await viewing.prints(/\n/));
    const page = await browser.open(url, { width: 1400, height: 1000 });
    const first = machine.command('export', 'cam', '--to', 'screen', '--name', 'hall', ...CARD);
    await page.getByRole('heading', { name: 'hall' }).waitFor();
    await showsBars(page);
    const { search, origin } = new URL(url);
    const status = await fetch(new URL(`/api/status${search}`, origin));
    const { guests } = (await status.json()) as DaemonStatus;
    assert.deepEqual([guests.length, guests[0]!.name], [1, 'hall']);
    const path = `/api/guests/${guests[0]!.domid}/displays/0.png`;
    const answer = await fetch(new URL(`${path}${search}`, origin));
    assert.deepEqual(barsOf(PNG.sync.read(Buffer.from(await answer.arrayBuffer()))), BARS);

    first.kill('SIGINT');
    assert.equal((await first.ended).code, 130);
    await page.getByText('stopped').waitFor();
    await page.getByText('No display').waitFor();

    const second = machine.command('export', 'cam', '--to', 'screen', '--name', 'hall', ...CARD);
    await showsBars(page);
    second.kill('SIGKILL');
    await page.getByText('crashed').waitFor();
    await page.close();
    viewing.kill('SIGINT');
    const { code, stderr } = await viewing.ended;
    assert.equal(code, 0, stderr);
  }));
