// One exporter that we listen to: what it offers, what of it we have open, what it costs, what we answer.
//
// Invariants: everything that the exporter makes us hold is charged to its account, within the budget of its
// rule, before it is acquired; its row in the ledger goes with the last of it, which an opening that is under way, and
// a mapping that the kernel does not take back at once, are waited for.

import assert from 'node:assert/strict';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import type { Domain } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import type { HeldBuffer } from '../xen/xenbus/driver.ts';
import { accountedDomain } from '../zcopy/accounted-domain.ts';
import type { Account, Ledger } from '../zcopy/ledger.ts';
import { patientDomain } from '../zcopy/patient-domain.ts';
import { Answers } from './answers.ts';
import { ImportedShare, type OpenOptions } from './imported-share.ts';
import type { OfferedShare } from './offered-share.ts';
import { PeerOffers } from './peer-offers.ts';
import { type AcceptRule, budgetOf } from './policy.ts';
import { ShareError } from './share-error.ts';
import type { ShareEvent } from './share-events.ts';
import type { ShareId } from './share-id.ts';

export interface PeerOptions {
  readonly runtime: Runtime;
  /** Our own, not accounted. */
  readonly domain: Domain;
  readonly ledger: Ledger;
  readonly exporter: DomId;
  readonly rule: AcceptRule;
  /** Answers nothing. */
  readonly silent: boolean;
  readonly onEvent: (event: ShareEvent) => void;
}

export class Peer {
  readonly exporter: DomId;
  readonly #options: PeerOptions;
  readonly #scope: Scope;
  readonly #account: Account;
  readonly #domain: Domain;
  #answers: Answers | undefined;
  readonly #open = new Map<ShareId, ImportedShare | Promise<ImportedShare>>();
  /** Aborts with why nothing is opened any more. */
  readonly #leaving = new AbortController();
  #offers: PeerOffers | undefined;

  private constructor(options: PeerOptions) {
    const { runtime, domain, ledger, exporter, rule } = options;
    this.#options = options;
    this.exporter = exporter;
    this.#scope = new Scope(`peer-${exporter}`);
    const name = `domain ${exporter}`;
    const account = ledger.open({ domid: exporter, name, budget: budgetOf(rule) });
    this.#scope.defer(() => ledger.close(account));
    this.#account = account;
    this.#domain = accountedDomain(patientDomain(runtime, domain), account);
  }

  /** Begins to listen, and has looked once. @throws SysError */
  static async open(options: PeerOptions): Promise<Peer> {
    const peer = new Peer(options);
    const { runtime, exporter, rule, silent } = options;
    try {
      if (!silent) await peer.#openAnswers();
      peer.#offers = await PeerOffers.open({
        runtime,
        domain: peer.#domain,
        exporter,
        rule,
        onEvent: (event) => peer.#onEvent(event),
        onRefusal: (reason, id) => peer.#refuse(reason, id),
        onAbsent: (id) => peer.#answers?.takeBack(id),
      });
      peer.#scope.own(peer.#offers);
      await peer.#answers?.sweep((id) => peer.offer(id) !== undefined);
      return peer;
    } catch (error) {
      await peer.#scope.close();
      throw error;
    }
  }

  get offers(): readonly OfferedShare[] {
    return this.#offers?.shares ?? [];
  }

  offer(id: ShareId): OfferedShare | undefined {
    return this.#offers?.share(id);
  }

  get shares(): readonly ImportedShare[] {
    return [...this.#open.values()].filter((share) => share instanceof ImportedShare);
  }

  /** What the exporter was refused, by reason. */
  get refused(): Readonly<Record<string, number>> {
    return this.#account.refused;
  }

  /** As `Importer.open`. */
  async open(offered: OfferedShare, options: OpenOptions): Promise<ImportedShare> {
    const { id } = offered;
    assert(this.#answers !== undefined, 'an importer that only looks opens nothing');
    if (options.writable && !this.#options.rule.allowWritable) {
      const detail = `our policy lets us write to no share of domain ${this.exporter}`;
      throw new ShareError('refused', detail);
    }
    if (this.#open.has(id)) {
      throw new ShareError('in-use', `the share ${id} is open in this program`);
    }
    this.#leaving.signal.throwIfAborted();
    try {
      const opening = this.#import(offered, options);
      this.#open.set(id, opening);
      const share = await opening;
      this.#open.set(id, share);
      void share.released.then(() => this.#onReleased(id));
      return share;
    } catch (error) {
      this.#open.delete(id);
      this.#answers.takeBack(id);
      if (error instanceof ShareError && error.reason === 'exporter-gone') this.#offers?.gone(id);
      throw this.#asShareError(error);
    }
  }

  /** Closes everything of it; what is being opened is given up. */
  async close(): Promise<void> {
    this.#leaving.abort(new ShareError('closed', 'the importer is closed'));
    await Promise.allSettled(this.#open.values());
    await Promise.all(this.shares.map((share) => share.close({ timeoutMs: CLOSE_TIMEOUT_MS })));
    await this.#scope.close();
  }

  async #openAnswers(): Promise<void> {
    const { runtime, domain, exporter } = this.#options;
    const { store, domid: importer } = domain;
    const log = runtime.log.child({ exporter });
    this.#answers = this.#scope.own(await Answers.open({ store, importer, exporter, log }));
  }

  async #import(offered: OfferedShare, options: OpenOptions): Promise<ImportedShare> {
    const charge = this.#account.charge({ buffers: 1 });
    try {
      this.#answers?.say(offered.id, { kind: 'accepted' });
      const share = await ImportedShare.open({
        ...options,
        runtime: this.#options.runtime,
        domain: this.#domain,
        offered,
        signal: this.#leaving.signal,
        onViolation: ({ reason }) => this.#account.countRefusal(reason),
        onExporterGone: () => this.#offers?.gone(offered.id),
      });
      this.#account.track(asHeld(offered, share));
      void share.released.then(() => charge[Symbol.dispose]());
      return share;
    } catch (error) {
      charge[Symbol.dispose]();
      throw error;
    }
  }

  #onReleased(id: ShareId): void {
    this.#open.delete(id);
    this.#offers?.closed(id);
    if (!this.#scope.closing) this.#answers?.takeBack(id);
  }

  #onEvent(event: ShareEvent): void {
    const open = this.#open.get(event.share.id);
    if (open instanceof ImportedShare) {
      if (event.type === 'withdrawn') open.withdraw(event.deadlineMs ?? 0);
      if (event.type === 'gone') open.exporterGone();
    }
    this.#options.onEvent(event);
  }

  #refuse(reason: string, id: ShareId): void {
    this.#account.countRefusal(reason);
    this.#answers?.say(id, { kind: 'refused', reason });
  }

  /** A failure as our caller should see it; what the exporter did is counted. */
  #asShareError(error: unknown): unknown {
    if (!(error instanceof ProtocolViolation)) return error;
    this.#account.countRefusal(error.reason);
    const reason = error.reason.startsWith('over-budget') ? 'over-budget' : 'malformed';
    return new ShareError(reason, error.message);
  }
}

/** How long drivers that have a dma-buf are waited for when we close; the release goes on by itself. */
const CLOSE_TIMEOUT_MS = 1000;

/** As the ledger lists it. */
function asHeld({ id }: OfferedShare, share: ImportedShare): HeldBuffer {
  return {
    name: `share ${id}`,
    pages: share.pages,
    direction: 'from-guest',
    contiguity: share.memory?.contiguity,
    dmaBuf: share.memory !== undefined,
    get state() {
      return share.releaseState;
    },
    get holders() {
      return share.holders;
    },
    gone: share.released,
  };
}
