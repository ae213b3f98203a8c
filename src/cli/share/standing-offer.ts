// A share that waits to be opened by a domain that may come again under another number: then it is offered anew,
// under a new id, because grants are for one number.
//
// Invariant: at most one share is offered at a time.

import type { ExportedShare } from '../../share/exported-share.ts';
import type { Exporter } from '../../share/exporter.ts';
import { ShareError } from '../../share/share-error.ts';
import type { DomId } from '../../xen/ids.ts';
import { contentWords } from './describe.ts';
import { resolveDomain } from './domain-refs.ts';
import type { ExportChoice } from './export-options.ts';
import { renamed } from './offers.ts';
import { Recipient } from './recipient.ts';
import type { ShareContext } from './session.ts';

/** How long an importer may look at what is withdrawn. */
const WITHDRAW_MS = 1000;

export interface OfferParts {
  readonly context: ShareContext;
  readonly choice: ExportChoice;
  readonly exporter: Exporter;
}

export class StandingOffer {
  readonly #parts: OfferParts;
  readonly #make: (to: DomId) => Promise<ExportedShare>;
  #share: ExportedShare | undefined;

  constructor(parts: OfferParts, make: (to: DomId) => Promise<ExportedShare>) {
    this.#parts = parts;
    this.#make = make;
  }

  /** Offers it, unless it is offered, and waits for an importer. @throws ShareError `refused`, `over-budget`, `timed-out`; SysError */
  async opened(): Promise<Recipient> {
    const { context, choice } = this.#parts;
    const patience = new AbortController();
    const { timeoutMs } = choice;
    const late = new ShareError('timed-out', `nobody opened the share within ${timeoutMs} ms`);
    const timer = timeoutMs && context.runtime.after(timeoutMs, () => patience.abort(late));
    const signal = AbortSignal.any([context.signal, patience.signal]);
    try {
      for (;;) {
        const recipient = await this.#openedBySame(signal);
        if (recipient !== undefined) return recipient;
        await this.withdraw();
      }
    } finally {
      if (timer) timer.cancel();
    }
  }

  /** Takes it back: the work is done, or it is to be offered to another domain. */
  async withdraw(): Promise<void> {
    const share = this.#share;
    this.#share = undefined;
    const { signal } = this.#parts.context;
    await share?.withdraw({ deadlineMs: WITHDRAW_MS, signal });
  }

  /** Undefined when the name means another domain by now. */
  async #openedBySame(signal: AbortSignal): Promise<Recipient | undefined> {
    const { context } = this.#parts;
    const share = this.#share ?? (await this.#offer(signal));
    const waiting = new AbortController();
    const known = [{ ref: this.#parts.choice.to, domid: share.to }];
    const stopped = AbortSignal.any([signal, waiting.signal]);
    renamed({ ...context, signal: stopped }, known).then(
      () => waiting.abort(),
      () => {},
    );
    try {
      await share.opened({ signal: stopped });
      return new Recipient(share, context.signal);
    } catch (error) {
      if (!waiting.signal.aborted) throw error;
      signal.throwIfAborted();
      return undefined;
    } finally {
      waiting.abort();
    }
  }

  async #offer(signal: AbortSignal): Promise<ExportedShare> {
    const { context, choice } = this.#parts;
    const to = await resolveDomain({ ...context, signal }, choice.to);
    // One domain was asked for: `any` is refused where options are read.
    this.#share = await this.#make(to as DomId);
    announce(this.#share, choice);
    return this.#share;
  }
}

/** Says on stdout by which id it can be opened. */
function announce(share: ExportedShare, { wanted, json }: ExportChoice): void {
  const { id, to, metadata, slotBytes } = share;
  const kind = wanted.kind === 'buffer' ? 'buffer' : 'stream';
  const content = contentWords(metadata.content);
  const facts = { id, to, name: metadata.name, kind, slotBytes, content, pid: process.pid };
  process.stdout.write(json ? `${JSON.stringify(facts)}\n` : `${id}\n`);
}
