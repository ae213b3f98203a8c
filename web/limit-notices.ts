// What a guest's card says while the guest meets its limits: that it is being slowed down, or that what it asks for is
// refused because its budget is spent. What only happened once upon a time is a number in the table below, and no notice.

import { rateText, spentText } from '../src/daemon/limit-words.ts';
import type { GuestStatus } from '../src/daemon/status.ts';

/** So long after the last time a notice stays: several statuses, and time to read it. */
const NOTICE_MS = 4000;

type Counts = Readonly<Record<string, number>>;

export class LimitNotices {
  #throttled: Counts;
  #refused: Counts;
  /** When each notice is over. */
  readonly #until = new Map<string, number>();

  /** From the first status that the page has of the guest. */
  constructor({ throttled, refused }: GuestStatus) {
    this.#throttled = throttled;
    this.#refused = refused;
  }

  /** What to say after a new status, one sentence each. */
  after({ throttled, refused, budget }: GuestStatus, nowMs: number): readonly string[] {
    for (const kind of grown(this.#throttled, throttled)) {
      const text = `Being slowed down: it asks for more than ${rateText(kind, budget)}.`;
      this.#until.set(text, nowMs + NOTICE_MS);
    }
    for (const reason of grown(this.#refused, refused)) {
      const spent = spentText(reason, budget);
      if (spent === undefined) continue;
      this.#until.set(`Refused more: its budget is ${spent}.`, nowMs + NOTICE_MS);
    }
    this.#throttled = throttled;
    this.#refused = refused;
    for (const [text, endMs] of this.#until) if (endMs <= nowMs) this.#until.delete(text);
    return [...this.#until.keys()].sort();
  }
}

/** What was counted since. */
function grown(before: Counts, now: Counts): string[] {
  return Object.keys(now).filter((key) => now[key]! > (before[key] ?? 0));
}
