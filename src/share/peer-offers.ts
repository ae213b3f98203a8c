// What one domain offers to us: its nodes in xenstore, looked at one by one as they change, checked against the
// policy, and kept for who wants to open them.
//
// Invariants:
// - A look is a comparison with what is known: lost, merged and repeated events are all the same.
// - Looks are paced, and what is remembered is bounded by the rule, however many nodes the domain writes.
// - A share is offered once, and its end is told once: withdrawn while the domain is there, gone with it.

import { SHARE_VERSION } from '../abi/share.ts';
import { messageOf, ProtocolViolation, SysError } from '../runtime/errors.ts';
import { RateLimit } from '../runtime/rate-limit.ts';
import { type Logger, type Runtime, sleep, type Timer } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import { type Domain, type ForeignMapping, GrantMapError } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import { distrust } from '../xen/untrusted.ts';
import { listPeerNodes, readPeerNode } from '../xen/xenbus/peer-node.ts';
import { SerialTask } from '../xen/xenbus/serial-task.ts';
import { parseMetadata, type ShareMetadata } from './metadata.ts';
import { nodeOf, type OfferNode, offersPath, parseOffer } from './nodes.ts';
import { type Offer, OfferReader } from './offer-page.ts';
import { OfferedShare } from './offered-share.ts';
import { type AcceptRule, bytesOf, refusalOf } from './policy.ts';
import type { ShareEvent } from './share-events.ts';
import { parseShareId, type ShareId } from './share-id.ts';

/** Nodes of one exporter that are looked at in a second, and at once after a pause. */
const LOOKS_PER_SECOND = 500;
const LOOKS_BURST = 128;
/** How long a look waits when there were too many. */
const PACE_MS = 5;
/** Pause before everything is looked at again after a look that failed: nothing else would make us look. */
const RETRY_MS = 1000;
/** Changed nodes that are remembered by name; more of them, and all are looked at. */
const CHANGED_MAX = 256;

export interface PeerOffersOptions {
  readonly runtime: Runtime;
  /** Charged to the exporter. */
  readonly domain: Domain;
  readonly exporter: DomId;
  readonly rule: AcceptRule;
  /** Told of every change, in order. */
  readonly onEvent: (event: ShareEvent) => void;
  /** Told of every offer that is refused, by reason, in one word; once for each change of its node. */
  readonly onRefusal: (reason: string, id: ShareId) => void;
  /** Told when an offer that is not known, refused ones among them, is not there any more. */
  readonly onAbsent: (id: ShareId) => void;
}

/** What a look at a node found. */
type Found =
  | { readonly node: OfferNode; readonly offer: Offer; readonly metadata: ShareMetadata }
  | undefined;

export class PeerOffers implements AsyncDisposable {
  readonly exporter: DomId;
  readonly #options: PeerOffersOptions;
  readonly #log: Logger;
  readonly #path: string;
  readonly #scope: Scope;
  readonly #task: SerialTask;
  readonly #pace: RateLimit;
  readonly #shares = new Map<ShareId, OfferedShare>();
  #changed = new Set<ShareId>();
  #lookAtAll = true;
  #retry: Timer | undefined;
  #firstLook: Promise<void>;
  #firstLookDone: () => void = () => {};

  private constructor(options: PeerOffersOptions) {
    const { runtime, domain, exporter } = options;
    this.#options = options;
    this.exporter = exporter;
    this.#log = runtime.log.child({ exporter });
    this.#path = offersPath({ exporter, importer: domain.domid });
    this.#scope = new Scope(`offers-of-${exporter}`);
    this.#task = new SerialTask(() => this.#look());
    this.#pace = new RateLimit(runtime, { perSecond: LOOKS_PER_SECOND, burst: LOOKS_BURST });
    this.#firstLook = new Promise((resolve) => {
      this.#firstLookDone = resolve;
    });
  }

  /** Listens, and has looked once. @throws SysError when xenstore refuses the watch */
  static async open(options: PeerOffersOptions): Promise<PeerOffers> {
    const offers = new PeerOffers(options);
    const { store } = options.domain;
    offers.#scope.own(await store.watch(offers.#path, (path) => offers.#onChange(path)));
    await offers.#firstLook;
    return offers;
  }

  get shares(): readonly OfferedShare[] {
    return [...this.#shares.values()];
  }

  share(id: ShareId): OfferedShare | undefined {
    return this.#shares.get(id);
  }

  /** Nothing of a share is open any more: one that was withdrawn is over, whatever xenstore says. */
  closed(id: ShareId): void {
    const share = this.#shares.get(id);
    if (share?.node.withdrawMs !== undefined) this.#end(share, { type: 'withdrawn', share });
  }

  /** The program that offered it is found to be gone, whatever it left in xenstore. */
  gone(id: ShareId): void {
    const share = this.#shares.get(id);
    if (share !== undefined) this.#end(share, { type: 'gone', share });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#scope.close();
    } finally {
      await this.#task.stop();
      this.#retry?.cancel();
    }
  }

  #onChange(path: string): void {
    const name = path.slice(this.#path.length + 1).split('/')[0] ?? '';
    const id = parseShareId(name);
    if (id !== undefined && this.#changed.size < CHANGED_MAX) this.#changed.add(id);
    else if (id !== undefined || name === '') this.#lookAtAll = true;
    this.#task.request();
  }

  async #look(): Promise<void> {
    try {
      if (this.#lookAtAll) await this.#list();
      const changed = this.#changed;
      this.#changed = new Set();
      for (const id of changed) await this.#lookAt(id);
    } catch (error) {
      if (!this.#scope.closing) this.#lookLater(error);
    } finally {
      this.#firstLookDone();
    }
  }

  /** What had changed is not known any more. */
  #lookLater(error: unknown): void {
    this.#log.warn({ reason: messageOf(error) }, 'cannot look at offers');
    this.#lookAtAll = true;
    this.#retry?.cancel();
    this.#retry = this.#options.runtime.after(RETRY_MS, () => this.#task.request());
  }

  /** Everything is to be looked at: what is there, and what was. */
  async #list(): Promise<void> {
    this.#lookAtAll = false;
    const names = await listPeerNodes(this.#options.domain.store, this.#path);
    if (names === undefined) {
      for (const share of this.shares) this.#end(share, { type: 'gone', share });
      return;
    }
    for (const id of this.#shares.keys()) this.#changed.add(id);
    for (const name of names) {
      const id = parseShareId(name);
      if (id === undefined || this.#changed.size >= CHANGED_MAX) continue;
      this.#changed.add(id);
    }
  }

  async #lookAt(id: ShareId): Promise<void> {
    while (!this.#pace.tryTake()) await sleep(this.#options.runtime, PACE_MS, this.#scope.signal);
    const path = nodeOf(this.#path, id);
    const value = await readPeerNode(this.#options.domain.store, path);
    const known = this.#shares.get(id);
    if (value === undefined) {
      if (known !== undefined) await this.#missing(known);
      else this.#options.onAbsent(id);
      return;
    }
    try {
      const node = parseOffer(distrust(value), path);
      if (known !== undefined) await this.#again(known, node);
      else if (node.withdrawMs === undefined) await this.#new(id, node);
    } catch (error) {
      this.#refuse(id, reasonOf(error), messageOf(error));
    }
  }

  /** The node of a share is not there any more. */
  async #missing(share: OfferedShare): Promise<void> {
    const left = await listPeerNodes(this.#options.domain.store, this.#path);
    const type = left === undefined ? 'gone' : 'withdrawn';
    const event = { type, share } as const;
    this.#end(share, type === 'withdrawn' ? { ...event, deadlineMs: 0 } : event);
  }

  async #new(id: ShareId, node: OfferNode): Promise<void> {
    const { exporter, rule } = this.#options;
    if (!node.versions.includes(SHARE_VERSION)) {
      const detail = `versions ${node.versions.join(', ')} are offered, ${SHARE_VERSION} is spoken here`;
      throw new ProtocolViolation('unsupported-version', 'XEN_EOPNOTSUPP', detail);
    }
    const found = await this.#read(node);
    if (found === undefined) return;
    if (found.offer.id !== id) {
      throw new ProtocolViolation('malformed-offer', 'XEN_EINVAL', `it is of ${found.offer.id}`);
    }
    const bytes = this.shares.reduce((sum, { offer }) => sum + bytesOf(offer), 0);
    const refusal = refusalOf(rule, found.offer, { shares: this.#shares.size, bytes });
    if (refusal !== undefined) {
      this.#refuse(id, refusal, `${bytesOf(found.offer)} bytes of ${bytes} known`);
      return;
    }
    const share = new OfferedShare({ exporter, ...found });
    this.#shares.set(id, share);
    this.#options.onEvent({ type: 'offered', share });
  }

  /** The node of a known share has changed. */
  async #again(share: OfferedShare, node: OfferNode): Promise<void> {
    const before = share.node;
    if (node.withdrawMs !== undefined) {
      if (before.withdrawMs !== undefined) return;
      share.update(node, share.metadata);
      const deadlineMs = node.withdrawMs;
      this.#options.onEvent({ type: 'withdrawn', share, deadlineMs });
      return;
    }
    if (node.generation === before.generation) return;
    const found = await this.#read(node);
    if (found === undefined) return;
    share.update(node, found.metadata);
    this.#options.onEvent({ type: 'updated', share });
  }

  #end(share: OfferedShare, event: ShareEvent): void {
    if (!this.#shares.delete(share.id)) return;
    const told = share.node.withdrawMs !== undefined;
    if (!told) this.#options.onEvent(event);
  }

  /** Looks at the pages of an offer; undefined when the program that made it is gone. */
  async #read(node: OfferNode): Promise<Found> {
    await using pages = await this.#map(node);
    if (pages === undefined) return undefined;
    const reader = new OfferReader(pages.bytes);
    if (!reader.exporterLive) return undefined;
    const offer = reader.offer();
    return { node, offer, metadata: parseMetadata(reader.metadata().copy, offer.slotBytes) };
  }

  async #map({ offerRefs }: OfferNode): Promise<ForeignMapping | undefined> {
    const { domain, exporter } = this.#options;
    try {
      return await domain.foreign.map({ domid: exporter, refs: offerRefs, writable: false });
    } catch (error) {
      if (error instanceof GrantMapError) return undefined;
      throw error;
    }
  }

  #refuse(id: ShareId, reason: string, detail: string): void {
    this.#log.warn({ share: id, reason }, `an offer is refused: ${detail}`);
    this.#options.onRefusal(reason, id);
  }
}

/** In one word. */
function reasonOf(error: unknown): string {
  if (error instanceof ProtocolViolation) {
    return error.reason.startsWith('over-budget') ? 'over-budget' : error.reason;
  }
  if (error instanceof SysError) return 'no-room';
  throw error;
}
