// One guest: its displays, what it makes us hold, and what can be done to it.

import type { ControlAction, GuestStatus } from '../src/daemon/status.ts';
import type { Update } from '../src/outputs/browser/protocol.ts';
import type { ServedStatus } from '../src/server/served-status.ts';
import { arrange, create, setText } from './dom.ts';
import type { GuestConnection } from './guest-controls.ts';
import { LimitNotices } from './limit-notices.ts';
import type { Link } from './link.ts';
import { ScreenPanel } from './screen-panel.ts';
import { wordsOf } from './text.ts';

const ACTION_NAMES: Readonly<Record<ControlAction, string>> = {
  stop: 'Stop',
  crash: 'Crash',
  restart: 'Restart',
};

const STATE_NAMES: Readonly<Record<GuestStatus['state'], string>> = {
  waiting: 'waiting for its drivers',
  connected: 'connected',
  closing: 'closing',
  stopped: 'stopped',
  crashed: 'crashed',
};

export class GuestCard {
  readonly element: HTMLElement;
  readonly domid: number;
  readonly #link: Link;
  readonly #viewOnly: boolean;
  #status: GuestStatus;
  readonly #state = create('span', { class: 'state' });
  readonly #buttons = create('div', { class: 'buttons' });
  readonly #error = create('p', { class: 'error', attributes: { role: 'alert' } });
  readonly #limits: LimitNotices;
  readonly #limited = create('p', { class: 'limited', attributes: { role: 'status' } });
  readonly #displays = create('div', { class: 'displays' });
  readonly #held = create('dl', { class: 'held' });
  readonly #panels = new Map<number, ScreenPanel>();
  readonly #absence = create(
    'div',
    { class: 'frame absent' },
    create('p', { class: 'notice', text: 'No display' }),
  );

  constructor(
    guest: GuestStatus,
    { link, access }: { link: Link; access: ServedStatus['access'] },
  ) {
    this.domid = guest.domid;
    this.#status = guest;
    this.#link = link;
    this.#viewOnly = access.viewOnly;
    this.#limits = new LimitNotices(guest);
    const title = create(
      'div',
      { class: 'title' },
      create('h2', { text: guest.name }),
      create('span', { class: 'domid', text: `domain ${guest.domid}` }),
      this.#state,
    );
    this.element = create(
      'article',
      {
        class: 'guest',
        attributes: { 'data-domid': String(guest.domid), 'aria-label': guest.name },
      },
      create('header', {}, title, this.#buttons),
      this.#error,
      this.#limited,
      this.#displays,
      this.#held,
    );
  }

  setStatus(guest: GuestStatus, { controls }: Pick<ServedStatus, 'controls'>): void {
    this.#status = guest;
    this.element.dataset.state = guest.state;
    setText(this.#state, STATE_NAMES[guest.state]);
    setText(this.#limited, this.#limits.after(guest, performance.now()).join(' '));
    this.#setDisplays(guest);
    this.#setHeld(guest);
    this.#setButtons(controls);
  }

  /** The panel of a connector, or undefined when the guest has none now. */
  panel({ connector }: Pick<Update, 'connector'>): ScreenPanel | undefined {
    return this.#panels.get(connector);
  }

  #setDisplays({ name, displays }: GuestStatus): void {
    const connectors = new Set(displays.map(({ connector }) => connector));
    for (const connector of this.#panels.keys()) {
      if (!connectors.has(connector)) this.#panels.delete(connector);
    }
    for (const display of displays) {
      const panel =
        this.#panels.get(display.connector) ?? new ScreenPanel(display, name, this.#connection());
      this.#panels.set(display.connector, panel);
      panel.setStatus(display, { named: displays.length > 1 });
    }
    const panels = [...this.#panels.entries()].sort(([one], [other]) => one - other);
    arrange(
      this.#displays,
      panels.length > 0 ? panels.map(([, { element }]) => element) : [this.#absence],
    );
  }

  /** The guest's keyboard and pointer, or nothing where this page may only look. */
  #connection(): GuestConnection | undefined {
    if (this.#viewOnly) return undefined;
    return {
      area: () => this.#status.input.area,
      send: (events) => this.#link.input(this.domid, events),
      release: () => this.#link.release(this.domid),
    };
  }

  /** What the guest makes us hold; all zero is worth seeing after it went. */
  #setHeld({ held, refused, throttled }: GuestStatus): void {
    const cells = Object.entries(held).map(([kind, count]) => ({ kind, count, refusal: false }));
    for (const [reason, count] of Object.entries(refused)) {
      cells.push({ kind: `refused: ${reason}`, count, refusal: true });
    }
    for (const [rate, count] of Object.entries(throttled)) {
      cells.push({ kind: `slowed down: ${rate}`, count, refusal: true });
    }
    const shape = cells.map(({ kind }) => kind).join();
    if (this.#held.dataset.shape !== shape) {
      this.#held.dataset.shape = shape;
      this.#held.replaceChildren(
        ...cells.map(({ kind, refusal }) =>
          create(
            'div',
            { class: refusal ? 'refusal' : '' },
            create('dt', { text: wordsOf(kind) }),
            create('dd', { attributes: { 'data-held': kind } }),
          ),
        ),
      );
    }
    cells.forEach(({ count }, index) => {
      const cell = this.#held.children[index]!;
      setText(cell.lastElementChild!, String(count));
      cell.classList.toggle('zero', count === 0);
    });
  }

  #setButtons(controls: ServedStatus['controls']): void {
    const alive = this.#status.state === 'connected' || this.#status.state === 'waiting';
    for (const action of controls) {
      let button = this.#buttons.querySelector<HTMLButtonElement>(`[data-action="${action}"]`);
      if (!button) {
        button = create('button', {
          text: ACTION_NAMES[action],
          attributes: { type: 'button', 'data-action': action },
        });
        button.addEventListener('click', () => void this.#act(action));
        this.#buttons.append(button);
      }
      button.disabled = this.#buttons.dataset.busy === 'yes' || (action !== 'restart' && !alive);
    }
  }

  async #act(action: ControlAction): Promise<void> {
    this.#buttons.dataset.busy = 'yes';
    setText(this.#error, '');
    for (const button of this.#buttons.querySelectorAll('button')) button.disabled = true;
    try {
      await this.#link.control(this.domid, action);
    } catch (error) {
      setText(this.#error, error instanceof Error ? error.message : String(error));
    } finally {
      this.#buttons.dataset.busy = 'no';
    }
  }
}
