// One display of a guest: its picture, and under it the numbers about it.

import type { DisplayStatus } from '../src/daemon/status.ts';
import type { Update } from '../src/outputs/browser/protocol.ts';
import { create, setText } from './dom.ts';
import { type GuestConnection, GuestControls } from './guest-controls.ts';
import { PictureCanvas } from './picture-canvas.ts';
import { bytesText, millisecondsText } from './text.ts';

/** The rate of drawn updates is measured over this time. */
const RATE_MS = 1000;

export class ScreenPanel {
  readonly element: HTMLElement;
  readonly #frame: HTMLElement;
  readonly #canvas: HTMLCanvasElement;
  readonly #picture: PictureCanvas;
  readonly #guest: GuestConnection | undefined;
  readonly #notice = create('p', { class: 'notice', text: 'The guest shows nothing yet.' });
  readonly #hint = create('span', { class: 'hint' });
  readonly #mode = create('span', { class: 'mode' });
  readonly #values = {
    flips: create('dd'),
    drawn: create('dd'),
    latency: create('dd'),
    copied: create('dd'),
  };
  #drawnSince: number[] = [];

  /** Without a `guest` connection the screen is for looking only, and cannot have the focus. */
  constructor(display: DisplayStatus, guestName: string, guest: GuestConnection | undefined) {
    this.#canvas = create('canvas', {
      class: 'picture',
      attributes: {
        ...(guest ? { tabindex: '0', role: 'application' } : { role: 'img' }),
        'aria-label': `Screen ${display.connector} of ${guestName}`,
        'data-testid': 'screen',
        width: String(display.width),
        height: String(display.height),
      },
    });
    this.#picture = new PictureCanvas(this.#canvas);
    this.#guest = guest;
    if (guest) new GuestControls(this.#canvas, guest);
    this.#frame = create('div', { class: 'frame blank' }, this.#canvas, this.#notice);
    this.element = create(
      'section',
      { class: 'display' },
      this.#frame,
      this.#caption(),
      this.#numbers(),
    );
    this.#canvas.addEventListener('focus', () => this.#showHint());
    this.#canvas.addEventListener('blur', () => this.#showHint());
    this.#fit();
    new ResizeObserver(() => this.#fit()).observe(this.#frame);
  }

  /** `named`: there are others, so that people need its name. */
  setStatus(display: DisplayStatus, { named }: { named: boolean }): void {
    const size = `${display.width} × ${display.height}`;
    const mode = display.format ? `${size} · ${display.format}` : size;
    setText(this.#mode, named ? `${display.uniqueId} · ${mode}` : mode);
    setText(this.#values.flips, display.flipsPerSecond.toFixed(0));
    setText(this.#values.drawn, this.#drawnRate().toFixed(0));
    const { viewLatencyMs } = display;
    setText(this.#values.latency, viewLatencyMs === null ? '–' : millisecondsText(viewLatencyMs));
    setText(this.#values.copied, bytesText(display.bytesCopied));
    this.#showHint();
    if (display.format === null) this.#setBlank(true);
  }

  /** Draws an update; resolves when it is on the canvas. @throws when it cannot be understood */
  async draw(update: Update): Promise<void> {
    await this.#picture.draw(update);
    this.#setBlank(update.width === 0);
    this.#drawnSince.push(performance.now());
    this.#drawnRate();
    this.#fit();
  }

  #caption(): HTMLElement {
    const enlarge = create('button', {
      class: 'quiet',
      text: 'Full screen',
      attributes: { type: 'button' },
    });
    enlarge.addEventListener('click', () => {
      void this.#frame.requestFullscreen().then(() => this.#canvas.focus());
    });
    return create('div', { class: 'caption' }, this.#mode, this.#hint, enlarge);
  }

  #numbers(): HTMLElement {
    const number = (label: string, value: HTMLElement, title: string) =>
      create('div', { title }, create('dt', { text: label }), value);
    const { flips, drawn, latency, copied } = this.#values;
    return create(
      'dl',
      { class: 'numbers' },
      number('flips/s', flips, 'Page flips that the guest completed in the last second'),
      number('drawn/s', drawn, 'Updates that this page drew in the last second'),
      number(
        'latency',
        latency,
        'From seeing a change in the guest’s pages to having drawn it here',
      ),
      number('copied', copied, 'Bytes of frames copied for viewers since the display connected'),
    );
  }

  #drawnRate(): number {
    const since = performance.now() - RATE_MS;
    this.#drawnSince = this.#drawnSince.filter((atMs) => atMs >= since);
    return this.#drawnSince.length;
  }

  #setBlank(blank: boolean): void {
    this.#frame.classList.toggle('blank', blank);
  }

  /** What to do for typing, where somebody listens and one may. */
  #showHint(): void {
    const focused = document.activeElement === this.#canvas;
    setText(this.#hint, this.#hintText(focused));
    this.#hint.classList.toggle('active', focused);
  }

  #hintText(focused: boolean): string {
    if (!this.#guest) return 'View only';
    if (this.#guest.area().width === 0) return '';
    return focused ? 'Ctrl+Alt+G gives the keyboard back' : 'Click to type and point';
  }

  /** One guest pixel is one pixel of this screen where there is room; otherwise it shrinks, smoothly. */
  #fit(): void {
    const { width, height } = this.#canvas;
    this.#frame.style.setProperty('--width', `${width / devicePixelRatio}px`);
    this.#frame.style.setProperty('--ratio', `${width / height}`);
    const shrunk = this.#canvas.clientWidth * devicePixelRatio < width - 1;
    this.#canvas.classList.toggle('shrunk', shrunk);
  }
}
