// The two ends of a share by hand, from its declarations alone: what an honest program would not do, and what a
// program in another language would.

import { PAGE_SIZE } from '../../src/abi/page.ts';
import {
  SHARE_ATTACHED_ACCEPTED,
  SHARE_FLAG_STREAM,
  SHARE_FLAG_WRITABLE,
  SHARE_FRAMES_OFFSET,
  SHARE_MAGIC,
  SHARE_STATES_OFFSET,
  shareControl,
  shareFrame,
  shareMetadata,
  shareOffer,
} from '../../src/abi/share.ts';
import type { Domain, EventChannel, ForeignMapping, SharedPages } from '../../src/xen/domain.ts';
import type { DomId, Gref } from '../../src/xen/ids.ts';

/** How the world's time is made to pass. */
export interface RawShareWorld {
  /** What the promise gives, with the world going on until it does. */
  run<T>(promise: Promise<T>): Promise<T>;
}

export interface RawDomain {
  readonly domain: Domain;
}

type OfferFields = Parameters<typeof shareOffer.write>[2];
type MetadataFields = Parameters<typeof shareMetadata.write>[2];

export interface RawOffer {
  /** 32 hexadecimal digits. */
  readonly id?: string;
  readonly slots?: number;
  readonly slotPages?: number;
  readonly stream?: boolean;
  readonly writable?: boolean;
  readonly fields?: Partial<OfferFields>;
  readonly metadata?: Partial<MetadataFields>;
  readonly metadataBytes?: number;
  /** The refs that the directory names, when not those of the data. */
  readonly refs?: (refs: readonly Gref[]) => readonly Gref[];
  /** The node's value; the right one when left out, none when undefined is returned. */
  readonly node?: (words: RawWords) => string | undefined;
}

export interface RawWords {
  readonly offerRefs: readonly Gref[];
  readonly port: number;
}

const ID = '0123456789abcdef0123456789abcdef';

/** An exporter that writes what it is told. */
export class RawExporter {
  readonly id: string;
  readonly path: string;
  readonly data: SharedPages;
  readonly offer: SharedPages;
  readonly control: SharedPages;
  readonly channel: EventChannel;
  /** Events that came. */
  events = 0;

  private constructor(
    parts: Pick<RawExporter, 'id' | 'path' | 'data' | 'offer' | 'control' | 'channel'>,
  ) {
    this.id = parts.id;
    this.path = parts.path;
    this.data = parts.data;
    this.offer = parts.offer;
    this.control = parts.control;
    this.channel = parts.channel;
  }

  static async open(
    { run }: RawShareWorld,
    { from, to, ...raw }: RawOffer & { from: RawDomain; to: DomId },
  ): Promise<RawExporter> {
    const { domain } = from;
    const { id = ID, slots = 1, slotPages = 1, stream = false, writable = false } = raw;
    const share = (pages: number, canWrite: boolean) =>
      run(domain.grants.share({ domid: to, pages, writable: canWrite }));
    const data = await share(slots * slotPages, writable);
    const directory = await share(2, false);
    const words = new Uint32Array(directory.bytes.buffer, directory.bytes.byteOffset, 2048);
    words[0] = directory.refs[1]!;
    words.set(raw.refs?.(data.refs) ?? data.refs, 1024);
    const control = await share(1, true);
    shareControl.fields.id.set(viewOf(control), 0, Buffer.from(id, 'hex'));
    const offer = await share(2, false);
    let onEvent = () => {};
    const channel = await run(domain.events.allocUnbound({ remote: to, handler: () => onEvent() }));
    const { metadataBytes = shareMetadata.size } = raw;
    shareOffer.write(new DataView(offer.bytes.buffer, offer.bytes.byteOffset), 0, {
      magic: SHARE_MAGIC,
      flags: (stream ? SHARE_FLAG_STREAM : 0) | (writable ? SHARE_FLAG_WRITABLE : 0),
      id: Buffer.from(id, 'hex'),
      slots,
      slot_pages: slotPages,
      slot_bytes: BigInt(slotPages * PAGE_SIZE),
      data_offset: 0,
      directory_ref: directory.refs[0]!,
      control_ref: control.refs[0]!,
      generation: 2,
      metadata_bytes: metadataBytes,
      session: 0,
      attached: 0,
      ended: 0,
      dropped: 0n,
      exporter_live: 1,
      ...raw.fields,
    });
    shareMetadata.write(new DataView(offer.bytes.buffer, offer.bytes.byteOffset + PAGE_SIZE), 0, {
      type: 0,
      format: 0,
      width: 0,
      height: 0,
      stride: 0,
      refresh_mhz: 0,
      modifier: 0n,
      colour_primaries: 2,
      colour_transfer: 2,
      colour_matrix: 2,
      colour_full_range: 0,
      user_bytes: 0,
      total_bytes: 0n,
      name: new Uint8Array(80),
      ...raw.metadata,
    });
    const root = `/local/domain/${domain.domid}/data/xen-zcopy/offers/${to}`;
    const { store } = domain;
    await run(store.mkdir(root));
    await run(
      store.setPermissions(root, [
        { domid: domain.domid, read: false, write: false },
        { domid: to, read: true, write: false },
      ]),
    );
    const path = `${root}/${id}`;
    const exporter = new RawExporter({ id, path, data, offer, control, channel });
    onEvent = () => exporter.#onEvent();
    const right = `versions=1 offer-refs=${offer.refs.join(',')} event-channel=${channel.port} generation=2`;
    const value = raw.node ? raw.node({ offerRefs: offer.refs, port: channel.port }) : right;
    if (value !== undefined) await run(store.write(path, value));
    return exporter;
  }

  /** Accepts whoever attaches; a test replaces it. */
  onEvent = () => this.answer(SHARE_ATTACHED_ACCEPTED);

  /** Says SHARE_ATTACHED_* to whoever is there. */
  answer(attached: number): void {
    const session = shareControl.fields.session.get(viewOf(this.control), 0);
    shareOffer.fields.attached.set(viewOf(this.offer), 0, attached);
    shareOffer.fields.session.set(viewOf(this.offer), 0, session);
    this.channel.notify();
  }

  /** Says what its kernel says when a program has died. */
  die(): void {
    shareOffer.fields.exporter_live.set(viewOf(this.offer), 0, 0);
    this.channel.notify();
  }

  /** Describes a frame and says that a slot is in `state`. */
  frame(slot: number, { sequence = 1n, bytes = 16n, state = 1 } = {}): void {
    shareFrame.write(viewOf(this.offer), SHARE_FRAMES_OFFSET + slot * shareFrame.size, {
      sequence,
      timestamp_ns: 0n,
      bytes,
      flags: 0,
    });
    viewOf(this.control).setUint32(SHARE_STATES_OFFSET + 4 * slot, state, true);
    this.channel.notify();
  }

  #onEvent(): void {
    this.events += 1;
    this.onEvent();
  }
}

/** An importer that writes what it is told. */
export class RawImporter {
  readonly control: ForeignMapping;
  readonly offer: ForeignMapping;
  readonly channel: EventChannel;

  private constructor(parts: Pick<RawImporter, 'control' | 'offer' | 'channel'>) {
    this.control = parts.control;
    this.offer = parts.offer;
    this.channel = parts.channel;
  }

  /** Maps the offer and binds, as the node of the share says. */
  static async open(
    { run }: RawShareWorld,
    { of, exporter, id }: { of: RawDomain; exporter: DomId; id: string },
  ): Promise<RawImporter> {
    const { domain } = of;
    const path = `/local/domain/${exporter}/data/xen-zcopy/offers/${domain.domid}/${id}`;
    const value = (await run(domain.store.read(path)))!;
    const word = (name: string) => new RegExp(`${name}=(\\S+)`).exec(value)![1]!;
    const refs = word('offer-refs').split(',').map(Number) as Gref[];
    const offer = await run(domain.foreign.map({ domid: exporter, refs, writable: false }));
    const channel = await run(
      domain.events.bindInterdomain({
        remote: exporter,
        remotePort: Number(word('event-channel')) as never,
        handler: () => {},
      }),
    );
    const controlRef = shareOffer.fields.control_ref.get(viewOf(offer), 0) as Gref;
    const control = await run(
      domain.foreign.map({ domid: exporter, refs: [controlRef], writable: true }),
    );
    return new RawImporter({ control, offer, channel });
  }

  /** Says that somebody is here. */
  attach({ version = 1, session = 77 } = {}): void {
    const view = viewOf(this.control);
    shareControl.fields.version.set(view, 0, version);
    shareControl.fields.session.set(view, 0, session);
    shareControl.fields.importer_live.set(view, 0, 1);
    this.channel.notify();
  }

  get answer(): { readonly session: number; readonly attached: number } {
    const view = viewOf(this.offer);
    const { session, attached } = shareOffer.fields;
    return { session: session.get(view, 0), attached: attached.get(view, 0) };
  }

  state(slot: number, state: number): void {
    viewOf(this.control).setUint32(SHARE_STATES_OFFSET + 4 * slot, state, true);
    this.channel.notify();
  }

  /** Ends as a program does that dies. */
  async leave({ run }: RawShareWorld): Promise<void> {
    shareControl.fields.importer_live.set(viewOf(this.control), 0, 0);
    this.channel.notify();
    await run(Promise.resolve(this.control[Symbol.asyncDispose]()));
    await run(Promise.resolve(this.offer[Symbol.asyncDispose]()));
    await run(Promise.resolve(this.channel[Symbol.asyncDispose]()));
  }
}

function viewOf({ bytes }: { readonly bytes: Uint8Array }): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
