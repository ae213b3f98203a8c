// What a guest's limits mean, in plain words: for the viewer page and `xen-zcopy status`, from what the status tells.

import type { GuestStatus } from './status.ts';

/** Of the rates in a budget (zcopy/budget.ts), by their names. */
const RATE_WORDS: Readonly<Record<string, string>> = {
  requestsPerSecond: 'display requests',
  wakeupsPerSecond: 'wake-ups',
  storeEventsPerSecond: 'changes of device states',
  mappedPagesPerSecond: 'pages of new buffers',
};

/** Of what is held, where its name is no word. */
const HELD_WORDS: Readonly<Record<string, string>> = {
  bytes: 'bytes of buffers',
  refs: 'grant references',
  areas: 'areas of scattered pages',
  ports: 'event channels',
  requests: 'requests in work',
};

const OVER_BUDGET = /^over-budget-(\w+)$/;

/** The rate that a guest went beyond: `4,000 display requests a second`. */
export function rateText(kind: string, budget: GuestStatus['budget']): string {
  return `${numberText(budget[kind] ?? 0)} ${RATE_WORDS[kind] ?? kind} a second`;
}

/** The budget that a refusal is about: `64 buffers`; undefined when it is about something else. */
export function spentText(reason: string, budget: GuestStatus['budget']): string | undefined {
  const kind = OVER_BUDGET.exec(reason)?.[1];
  if (kind === undefined) return undefined;
  return `${numberText(budget[kind] ?? 0)} ${HELD_WORDS[kind] ?? kind}`;
}

function numberText(value: number): string {
  return value.toLocaleString('en');
}
