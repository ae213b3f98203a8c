// Waiting for the share that a command wants, from domains that may come later than the command does, or come
// again under another number.

import { sleep } from '../../runtime/runtime.ts';
import { Importer } from '../../share/importer.ts';
import type { OfferedShare } from '../../share/offered-share.ts';
import type { SharePolicy } from '../../share/policy.ts';
import { ShareError } from '../../share/share-error.ts';
import type { ShareEvent } from '../../share/share-events.ts';
import type { ShareId } from '../../share/share-id.ts';
import type { DomId } from '../../xen/ids.ts';
import type { Ledger } from '../../zcopy/ledger.ts';
import type { DomainRef } from './domain-refs.ts';
import { type FromRule, resolvePolicy } from './policy-file.ts';
import type { ShareContext } from './session.ts';

/** How often a name is looked up again while nothing of its domain comes. */
const LOOK_AGAIN_MS = 500;

export interface OfferWish {
  readonly rules: readonly FromRule[];
  /** That one, which must be there; otherwise the first that is wanted. */
  readonly id?: ShareId | undefined;
  readonly wanted?: (share: OfferedShare) => boolean;
  readonly timeoutMs?: number | undefined;
  readonly ledger?: Ledger;
}

export interface FoundOffer {
  /** Listens to the domains; the caller closes it. */
  readonly importer: Importer;
  readonly offered: OfferedShare;
}

/** @throws ShareError `unknown-id`, `timed-out`; SysError; the signal's reason */
export async function awaitOffer(context: ShareContext, wish: OfferWish): Promise<FoundOffer> {
  const { timeoutMs } = wish;
  const patience = new AbortController();
  const late = new ShareError('timed-out', `nothing was offered within ${timeoutMs} ms`);
  const timer = timeoutMs && context.runtime.after(timeoutMs, () => patience.abort(late));
  const signal = AbortSignal.any([context.signal, patience.signal]);
  try {
    for (;;) {
      const found = await look({ ...context, signal }, wish);
      if (found !== undefined) return found;
    }
  } finally {
    if (timer) timer.cancel();
  }
}

/** Undefined when a name means another domain by now. */
async function look(context: ShareContext, wish: OfferWish): Promise<FoundOffer | undefined> {
  const { runtime, place, signal } = context;
  const { rules, id, wanted = () => true, ledger } = wish;
  const policy = await resolvePolicy(context, rules);
  const { domain } = place;
  const importer = await Importer.open({ runtime, domain, policy, ...(ledger && { ledger }) });
  const looking = new AbortController();
  try {
    if (id !== undefined) return { importer, offered: importer.offered(id) };
    const watched = AbortSignal.any([signal, looking.signal]);
    const stop = () => looking.abort();
    renamed({ ...context, signal: watched }, known(rules, policy)).then(stop, stop);
    const offered = await firstOffer(importer, wanted, watched);
    if (offered !== undefined) return { importer, offered };
    signal.throwIfAborted();
  } catch (error) {
    await importer.close();
    throw error;
  } finally {
    looking.abort();
  }
  await importer.close();
  return undefined;
}

/** Undefined when the signal ends the waiting. */
async function firstOffer(
  importer: Importer,
  wanted: (share: OfferedShare) => boolean,
  signal: AbortSignal,
): Promise<OfferedShare | undefined> {
  for await (const { type, share } of eventsUntil(importer, signal)) {
    if ((type === 'offered' || type === 'updated') && wanted(share)) return share;
  }
  return undefined;
}

/** The importer's events, ended by the signal. */
export async function* eventsUntil(
  importer: Importer,
  signal: AbortSignal,
): AsyncGenerator<ShareEvent> {
  const events = importer.events();
  for (;;) {
    const next = await unlessAborted(events.next(), signal);
    if (next === undefined || next.done) return;
    yield next.value;
  }
}

/** Undefined when the signal comes first; leaves no listener behind. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const onAbort = () => resolve(undefined);
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    const leave = () => signal.removeEventListener('abort', onAbort);
    promise.finally(leave).then(resolve, reject);
  });
}

/** Resolves when one of the names means another domain, or nobody. @throws the signal's reason, SysError */
export async function renamed(
  { runtime, place, signal }: Pick<ShareContext, 'runtime' | 'place' | 'signal'>,
  known: readonly { readonly ref: DomainRef; readonly domid: DomId | 'any' }[],
): Promise<void> {
  const named = known.filter(({ ref }) => ref.kind === 'name');
  for (;;) {
    await sleep(runtime, LOOK_AGAIN_MS, signal);
    for (const { ref, domid } of named) if ((await place.find(ref.text)) !== domid) return;
  }
}

/** Which domain each rule of a policy is about. */
export function known(rules: readonly FromRule[], { accept }: SharePolicy) {
  return rules.map(({ from: ref }, at) => ({ ref, domid: accept[at]!.from }));
}
