// A share as its importer knows it before and after it has it open: what was offered, and what has become of it.

import type { DomId } from '../xen/ids.ts';
import type { ShareMetadata } from './metadata.ts';
import type { OfferNode } from './nodes.ts';
import type { Offer } from './offer-page.ts';
import type { ShareKind } from './policy.ts';
import type { ShareId } from './share-id.ts';

export interface OfferedShareParts {
  readonly exporter: DomId;
  readonly node: OfferNode;
  readonly offer: Offer;
  readonly metadata: ShareMetadata;
}

export class OfferedShare {
  readonly exporter: DomId;
  readonly offer: Offer;
  /** As last read in xenstore. */
  node: OfferNode;
  #metadata: ShareMetadata;

  constructor({ exporter, node, offer, metadata }: OfferedShareParts) {
    this.exporter = exporter;
    this.node = node;
    this.offer = offer;
    this.#metadata = metadata;
  }

  get id(): ShareId {
    return this.offer.id;
  }

  get kind(): ShareKind {
    return this.offer.stream ? 'stream' : 'buffer';
  }

  /** Whether it may be opened for writing. */
  get writable(): boolean {
    return this.offer.writable;
  }

  /** Of each slot. */
  get slotBytes(): number {
    return this.offer.slotBytes;
  }

  get slots(): number {
    return this.offer.slots;
  }

  /** The newest. */
  get metadata(): ShareMetadata {
    return this.#metadata;
  }

  /** What the exporter says now. */
  update(node: OfferNode, metadata: ShareMetadata): void {
    this.node = node;
    this.#metadata = metadata;
  }
}
