// GET /metrics: the daemon's status as Prometheus text, read when it is asked for.

import { Counter, Gauge, Registry } from 'prom-client';
import type { DisplayStatus, GuestStatus } from '../daemon/status.ts';
import type { DaemonView } from '../daemon/view.ts';
import type { RefusalCounts } from './refusal-counts.ts';

const DISPLAY_LABELS = ['domid', 'connector', 'path'] as const;

export class Metrics {
  readonly #registry = new Registry();
  readonly #view: DaemonView;

  constructor(
    view: DaemonView,
    { viewers, refused }: { viewers: () => number; refused: RefusalCounts },
  ) {
    this.#view = view;
    this.#perDisplay('bytes_copied_total', 'Bytes of frames copied on the way to a display.', {
      value: (display) => display.bytesCopied,
    });
    this.#perDisplay('flips_total', 'Page flips completed.', { value: (display) => display.flips });
    this.#perGuest('guest_held', 'What a guest makes us hold now.', {
      label: 'kind',
      values: (guest) => guest.held,
      total: false,
    });
    this.#perGuest('guest_budget', 'The most of each kind, and the rates, that a guest may have.', {
      label: 'kind',
      values: (guest) => guest.budget,
      total: false,
    });
    this.#perGuest('guest_buffers', 'Buffers that a guest makes us hold now, by their state.', {
      label: 'state',
      values: (guest) => countBy(guest.buffers.map(({ state }) => state)),
      total: false,
    });
    this.#perGuest('guest_refused_total', 'Requests of a guest that were refused.', {
      label: 'reason',
      values: (guest) => guest.refused,
      total: true,
    });
    this.#perGuest('guest_throttled_total', 'Times that a guest beyond a rate had to wait.', {
      label: 'kind',
      values: (guest) => guest.throttled,
      total: true,
    });
    this.#perGuest('guest_restarts_total', 'Times that a device failed and was started anew.', {
      label: 'device',
      values: ({ services }) =>
        Object.fromEntries(
          services.map(({ type, devid, restarts }) => [`${type}/${devid}`, restarts]),
        ),
      total: true,
    });
    new Gauge({
      name: 'viewers',
      help: 'Viewers connected now.',
      registers: [this.#registry],
      collect() {
        this.set(viewers());
      },
    });
    new Counter({
      name: 'web_refused_total',
      help: 'Requests and messages to the server that were refused.',
      labelNames: ['reason'],
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [reason, count] of refused.byReason) this.inc({ reason }, count);
      },
    });
    new Counter({
      name: 'web_throttled_total',
      help: 'Times that a viewer beyond its rate had to wait.',
      registers: [this.#registry],
      collect() {
        this.reset();
        this.inc(refused.rests);
      },
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #perDisplay(
    name: string,
    help: string,
    { value }: { value: (display: DisplayStatus) => number },
  ): void {
    const view = this.#view;
    new Counter({
      name,
      help,
      labelNames: DISPLAY_LABELS,
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const { domid, displays } of view.status().guests) {
          for (const display of displays) {
            const { connector, path } = display;
            this.inc({ domid, connector, path }, value(display));
          }
        }
      },
    });
  }

  #perGuest(
    name: string,
    help: string,
    {
      label,
      values,
      total,
    }: {
      label: string;
      values: (guest: GuestStatus) => Readonly<Record<string, number>>;
      /** Whether the number only grows. */
      total: boolean;
    },
  ): void {
    const view = this.#view;
    const Metric = total ? Counter : Gauge;
    new Metric({
      name,
      help,
      labelNames: ['domid', label],
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const guest of view.status().guests) {
          for (const [key, value] of Object.entries(values(guest))) {
            this.inc({ domid: guest.domid, [label]: key }, value);
          }
        }
      },
    });
  }
}

function countBy(words: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}
