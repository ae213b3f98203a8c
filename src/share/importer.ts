// What other domains share with a program: listens to those that the policy names, tells what they offer, and
// opens what is wanted.
//
// Invariant: a domain that the policy does not name costs nothing and is not listened to.

import { messageOf, SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import type { Domain } from '../xen/domain.ts';
import { type DomId, domId } from '../xen/ids.ts';
import { SerialTask } from '../xen/xenbus/serial-task.ts';
import { isErrno } from '../xen/xenstore-access.ts';
import { Ledger } from '../zcopy/ledger.ts';
import type { ImportedShare, OpenOptions } from './imported-share.ts';
import type { OfferedShare } from './offered-share.ts';
import { Peer } from './peer.ts';
import { ruleFor, type SharePolicy } from './policy.ts';
import { ShareError } from './share-error.ts';
import { type ShareEvent, ShareEvents } from './share-events.ts';
import type { ShareId } from './share-id.ts';

export interface ImporterOptions {
  readonly runtime: Runtime;
  /** Used, and not owned. */
  readonly domain: Domain;
  readonly policy: SharePolicy;
  /** Where what is held is entered; one of its own when left out. */
  readonly ledger?: Ledger;
  /** Only looks: answers nothing, so exporters do not notice. */
  readonly silent?: boolean;
}

/** Exporters listened to at a time, whatever the policy says. */
const MAX_PEERS = 256;
const HOMES = '/local/domain';

export class Importer implements AsyncDisposable {
  readonly #options: ImporterOptions;
  readonly #ledger: Ledger;
  readonly #scope = new Scope('importer');
  readonly #peers = new Map<DomId, Peer>();
  readonly #events = new ShareEvents();
  readonly #everybody = new SerialTask(() => this.#meetEverybody());

  private constructor(options: ImporterOptions) {
    this.#options = options;
    this.#ledger = options.ledger ?? new Ledger();
  }

  /**
   * Listens to everyone whom the policy accepts, and has looked at what they offer.
   * @throws SysError EACCES for a policy that accepts `any` in a domain that may not list the others
   */
  static async open(options: ImporterOptions): Promise<Importer> {
    const importer = new Importer(options);
    try {
      const { accept } = options.policy;
      for (const { from } of accept) if (from !== 'any') await importer.#meet(from);
      if (accept.some(({ from }) => from === 'any')) await importer.#listenToAny();
      return importer;
    } catch (error) {
      await importer.close();
      throw error;
    }
  }

  /** What is offered now, by all exporters. */
  get offers(): readonly OfferedShare[] {
    return [...this.#peers.values()].flatMap((peer) => peer.offers);
  }

  /** What is open. */
  get shares(): readonly ImportedShare[] {
    return [...this.#peers.values()].flatMap((peer) => peer.shares);
  }

  /** What exporters were refused, by reason. */
  get refused(): ReadonlyMap<DomId, Readonly<Record<string, number>>> {
    return new Map([...this.#peers].map(([domid, { refused }]) => [domid, refused]));
  }

  /** What happens to offers, beginning with those that are there. One reader at a time. */
  events(): AsyncIterableIterator<ShareEvent> {
    return this.#events;
  }

  /** The share of that id. @throws ShareError `unknown-id`, `withdrawn` */
  offered(id: ShareId): OfferedShare {
    for (const peer of this.#peers.values()) {
      const share = peer.offer(id);
      if (share === undefined) continue;
      if (share.node.withdrawMs === undefined) return share;
      throw new ShareError('withdrawn', `the share ${id} is withdrawn`);
    }
    throw new ShareError('unknown-id', `no share ${id} is offered to this domain`);
  }

  /**
   * Opens a share.
   * @throws ShareError `unknown-id`, `withdrawn`, `in-use`, `exporter-gone`, `refused`, `not-writable`,
   *   `over-budget`, `malformed`, `timed-out`
   * @throws SysError without room
   */
  async open(id: ShareId, options: OpenOptions = {}): Promise<ImportedShare> {
    const share = this.offered(id);
    return this.#peers.get(share.exporter)!.open(share, options);
  }

  /** Closes everything that is open, takes the answers back, and listens to nobody any more. */
  async close(): Promise<void> {
    this.#events.close();
    await this.#everybody.stop();
    await this.#scope.close();
    await Promise.all([...this.#peers.values()].map((peer) => peer.close()));
    this.#peers.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #meet(exporter: DomId): Promise<void> {
    const { runtime, domain, policy, silent = false } = this.#options;
    const rule = ruleFor(policy, exporter);
    if (rule === undefined || this.#peers.has(exporter) || this.#peers.size >= MAX_PEERS) return;
    const ledger = this.#ledger;
    const onEvent = (event: ShareEvent) => this.#events.push(event);
    const peer = await Peer.open({ runtime, domain, ledger, exporter, rule, silent, onEvent });
    this.#peers.set(exporter, peer);
  }

  /** Domains that are gone, unless something of theirs is still open. */
  async #forgetBut(domids: readonly DomId[]): Promise<void> {
    for (const [domid, peer] of this.#peers) {
      if (domids.includes(domid) || peer.shares.length > 0) continue;
      this.#peers.delete(domid);
      await peer.close();
    }
  }

  async #listenToAny(): Promise<void> {
    const { store } = this.#options.domain;
    await this.#meetAll();
    const request = () => this.#everybody.request();
    this.#scope.own(await store.watch('@introduceDomain', request));
  }

  async #meetEverybody(): Promise<void> {
    try {
      await this.#meetAll();
    } catch (error) {
      const reason = messageOf(error);
      this.#options.runtime.log.warn({ reason }, 'cannot listen to a new domain');
    }
  }

  async #meetAll(): Promise<void> {
    const { store, domid: own } = this.#options.domain;
    try {
      const names = (await store.directory(HOMES)) ?? [];
      const domids = names
        .filter((name) => /^\d{1,5}$/.test(name))
        .map((name) => domId(Number(name)));
      await this.#forgetBut(domids);
      for (const domid of domids) if (domid !== own) await this.#meet(domid);
    } catch (error) {
      if (!isErrno(error, 'EACCES')) throw error;
      const remedy = 'only domain 0 may list the others: name those whose shares are accepted';
      const { call, errnoName, context } = error;
      throw new SysError({ call, errnoName, context, remedy });
    }
  }
}
