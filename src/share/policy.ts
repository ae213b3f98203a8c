// Who may offer this domain what, and how much: consent, given before anything is offered. Who is not in it is
// not even listened to.

import { PAGE_SIZE } from '../abi/page.ts';
import type { DomId } from '../xen/ids.ts';
import { type Budget, DEFAULT_BUDGET } from '../zcopy/budget.ts';
import { directoryLeaves } from './grant-directory.ts';
import type { Offer } from './offer-page.ts';

/** What one domain, or every domain that has no rule of its own, may offer. */
export interface AcceptRule {
  readonly from: DomId | 'any';
  /** Shares at a time. */
  readonly maxShares: number;
  /** Of all its shares together. */
  readonly maxBytes: number;
  readonly kinds: readonly ShareKind[];
  /** Whether we may write to what it offers for writing. */
  readonly allowWritable: boolean;
}

export type ShareKind = 'buffer' | 'stream';

export interface SharePolicy {
  readonly accept: readonly AcceptRule[];
}

export const DEFAULT_RULE: Omit<AcceptRule, 'from'> = {
  maxShares: 64,
  maxBytes: 1024 ** 3,
  kinds: ['buffer', 'stream'],
  allowWritable: true,
};

/** The rule for a domain, or undefined when nothing is accepted from it. */
export function ruleFor({ accept }: SharePolicy, domid: DomId): AcceptRule | undefined {
  return accept.find(({ from }) => from === domid) ?? accept.find(({ from }) => from === 'any');
}

/** Why a rule refuses an offer, in one word; undefined when it does not. */
export function refusalOf(
  rule: AcceptRule,
  offer: Offer,
  known: { readonly shares: number; readonly bytes: number },
): string | undefined {
  if (!rule.kinds.includes(offer.stream ? 'stream' : 'buffer')) return 'kind-not-accepted';
  if (known.shares >= rule.maxShares) return 'over-budget';
  return known.bytes + bytesOf(offer) > rule.maxBytes ? 'over-budget' : undefined;
}

/** All bytes of an offer's slots. */
export function bytesOf({ slots, slotPages }: Offer): number {
  return slots * slotPages * PAGE_SIZE;
}

/** What a domain may make us hold under a rule: the data, and the pages around them. */
export function budgetOf({ maxShares, maxBytes }: AcceptRule): Budget {
  const dataPages = Math.ceil(maxBytes / PAGE_SIZE);
  // The offer, its control page, and the directory while it is read.
  const pages = dataPages + maxShares * (4 + directoryLeaves(dataPages));
  return {
    // The rates, which say nothing about shares: those have a pace of their own.
    ...DEFAULT_BUDGET,
    bytes: maxBytes,
    pages,
    // Once for the view, once for a dma-buf.
    refs: 2 * pages,
    mappings: maxShares * MAPPINGS_PER_SHARE,
    // However scattered; who opens a share wants it.
    areas: pages,
    ports: maxShares,
    watches: 1,
    connectors: 0,
    requests: 0,
    buffers: maxShares,
    framebuffers: 0,
    poolPages: 0,
    quarantinedPages: pages,
  };
}

/** A view and a dma-buf of each of 64 slots, the offer, the control page, the directory. */
const MAPPINGS_PER_SHARE = 2 * 64 + 3;
