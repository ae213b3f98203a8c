// Debian's Chromium, driven by playwright-core: what the browser tests share.

import { createHash } from 'node:crypto';
import { type Browser, chromium, type Page } from 'playwright-core';
import type { Picture } from '../../src/display/output.ts';
import { toRgba } from '../../src/outputs/convert.ts';

const EXECUTABLE = '/usr/bin/chromium';

/** No sandbox, because tests run as root in containers; nothing that looks for the outside. */
const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export interface ChromiumOptions {
  readonly width?: number;
  readonly height?: number;
  readonly colorScheme?: 'light' | 'dark';
}

export class Chromium implements AsyncDisposable {
  readonly #browser: Browser;

  private constructor(browser: Browser) {
    this.#browser = browser;
  }

  /** Starts a headless browser with a profile of its own. */
  static async launch(): Promise<Chromium> {
    const browser = await chromium.launch({ executablePath: EXECUTABLE, args: ARGUMENTS });
    return new Chromium(browser);
  }

  /** A page in a session of its own, on which any error of the page's scripts fails the test. */
  async open(url: string, options: ChromiumOptions = {}): Promise<Page> {
    const { width = 1280, height = 800, colorScheme = 'light' } = options;
    const context = await this.#browser.newContext({ viewport: { width, height }, colorScheme });
    const page = await context.newPage();
    page.on('pageerror', (error) => {
      throw error;
    });
    await page.goto(url);
    return page;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.close();
  }
}

export interface CanvasDigest {
  readonly width: number;
  readonly height: number;
  /** SHA-256 of the RGBA bytes, row by row, in hexadecimal. */
  readonly sha256: string;
}

/** What is on the canvas of a guest's screen, or undefined while there is none. */
export async function canvasDigest(
  page: Page,
  { domid, connector = 0 }: { domid: number; connector?: number },
): Promise<CanvasDigest | undefined> {
  const selector = `[data-domid="${domid}"] canvas[aria-label^="Screen ${connector} "]`;
  const digest = await page.evaluate<CanvasDigest | null>(`
    (async () => {
      const canvas = document.querySelector(${JSON.stringify(selector)});
      if (!canvas) return null;
      const { width, height } = canvas;
      const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
      const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
      const sha256 = Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
      return { width, height, sha256 };
    })()`);
  return digest ?? undefined;
}

/** The digest that a canvas has when it shows exactly `picture`. */
export function digestOf(picture: Picture): CanvasDigest {
  const { width, height } = picture;
  const rgba = new Uint32Array(width * height);
  toRgba(picture, rgba);
  const sha256 = createHash('sha256').update(new Uint8Array(rgba.buffer)).digest('hex');
  return { width, height, sha256 };
}
