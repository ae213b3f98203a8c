// One share, open at its importer: the data in place, its end, and the farewell.
//
// Invariants:
// - It is ours alone in this domain: the port can be bound once. The exporter has accepted it before any of
//   its data are mapped.
// - The exporter hears the farewell when nothing of the data is mapped any more, not before; a program
//   that dies says it, too, by its kernel.
// - What is withdrawn closes itself when its time is over: views read zeros then.

import { SHARE_ATTACHED_ACCEPTED } from '../abi/share.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { Timer } from '../runtime/runtime.ts';
import { GrantMapError } from '../xen/domain.ts';
import type { DmaBuf } from '../xen/memory.ts';
import {
  type Holder,
  Release,
  type ReleaseOutcome,
  type ReleaseStep,
  type ReleaseWait,
} from '../zcopy/release.ts';
import type { SharedBuffer } from '../zcopy/shared-buffer.ts';
import { type FromRefsRequest, Zcopy } from '../zcopy/zcopy.ts';
import { type Attachment, type AttachOptions, attach, exporterGone } from './attachment.ts';
import { FrameConsumer } from './consumer.ts';
import { readDirectory } from './grant-directory.ts';
import type { ShareMetadata } from './metadata.ts';
import type { OfferReader } from './offer-page.ts';
import { ShareError } from './share-error.ts';
import type { ShareId } from './share-id.ts';

/** Why an open share is over, or soon will be. */
export type ImportEnd = 'withdrawn' | 'exporter-gone' | 'turned-out' | 'closed';

export interface OpenOptions {
  /** For writing as well; it must be offered so. */
  readonly writable?: boolean;
  /** Whether drivers of this host are to get the data; see `Zcopy.fromRefs`. */
  readonly dmaBuf?: FromRefsRequest['dmaBuf'];
}

export interface ImportOptions extends OpenOptions, AttachOptions {
  readonly onViolation: (violation: ProtocolViolation) => void;
  /** The exporter's program is gone, of which xenstore says nothing. */
  readonly onExporterGone: () => void;
}

export class ImportedShare implements AsyncDisposable {
  readonly id: ShareId;
  readonly writable: boolean;
  /** Resolves once, with the first reason for it to be over. */
  readonly over: Promise<ImportEnd>;
  readonly #options: ImportOptions;
  readonly #attachment: Attachment;
  readonly #slots: readonly SharedBuffer[];
  readonly #release: Release;
  readonly #consumer: FrameConsumer | undefined;
  #end: ImportEnd | undefined;
  #onOver: (end: ImportEnd) => void = () => {};
  #deadline: Timer | undefined;

  private constructor(
    options: ImportOptions,
    attachment: Attachment,
    slots: readonly SharedBuffer[],
  ) {
    const { runtime, offered, writable = false } = options;
    this.id = offered.id;
    this.writable = writable;
    this.#options = options;
    this.#attachment = attachment;
    this.#slots = slots;
    this.over = new Promise((resolve) => {
      this.#onOver = resolve;
    });
    const steps = [...slots.map((slot) => this.#bufferStep(slot)), ...attachment.steps];
    this.#release = new Release({ runtime, steps });
    this.#consumer = offered.offer.stream ? this.#newConsumer() : undefined;
    for (const slot of slots) void slot.released.then(() => this.#release.hurry());
  }

  /**
   * Opens a share that is offered to this domain.
   * @throws ShareError `in-use`, `exporter-gone`, `refused`, `unsupported-version`, `not-writable`, `timed-out`
   * @throws ProtocolViolation when the exporter wrote what makes no sense, or its budget is not enough
   * @throws SysError without room. Nothing is left open then
   */
  static async open(options: ImportOptions): Promise<ImportedShare> {
    const { offered, runtime } = options;
    checkRights(options);
    let onEvent = () => {};
    const attachment = await attach(options, () => onEvent());
    const slots: SharedBuffer[] = [];
    try {
      for (const request of await slotRequests(options, attachment.offer)) {
        slots.push(await new Zcopy({ runtime, domain: options.domain }).fromRefs(request));
      }
      const share = new ImportedShare(options, attachment, slots);
      onEvent = () => share.#onEvent();
      share.#onEvent();
      return share;
    } catch (error) {
      const live = attachment.offer.exporterLive;
      await Promise.all(slots.map((slot) => slot.release()));
      await new Release({ runtime, steps: attachment.steps }).release();
      const badGrant = error instanceof GrantMapError;
      // What a dead program left is no lie of its domain's: the pages may be anything by now.
      if (!live && (badGrant || error instanceof ProtocolViolation)) throw exporterGone(offered);
      throw badGrant ? new ProtocolViolation('bad-grant', 'XEN_EINVAL', error.message) : error;
    }
  }

  get metadata(): ShareMetadata {
    return this.#options.offered.metadata;
  }

  /** Why it is over; undefined while it is not. */
  get end(): ImportEnd | undefined {
    return this.#end;
  }

  /** The data, in place, of what is no stream. @throws AssertionError once they are unmapped */
  get bytes(): Uint8Array {
    this.#checkOpen();
    return this.#slots[0]!.bytes;
  }

  /** For drivers of this host, where it was asked for and could be had. */
  get memory(): DmaBuf | undefined {
    return this.#slots[0]!.memory;
  }

  /** Why there is none although it was asked for. */
  get withoutDmaBuf(): string | undefined {
    return this.#slots[0]!.withoutDmaBuf;
  }

  /** The reading end. @throws ShareError `not-a-stream` */
  get frames(): FrameConsumer {
    if (this.#consumer !== undefined) return this.#consumer;
    throw new ShareError('not-a-stream', `the share ${this.id} is one buffer`);
  }

  /** Pages of data that are mapped. */
  get pages(): number {
    return this.#slots.reduce((sum, { pages }) => sum + pages, 0);
  }

  get holders(): readonly Holder[] {
    return this.#release.holders;
  }

  get releaseState(): Release['state'] {
    return this.#release.state;
  }

  /** Resolves when nothing of it is mapped here; never rejects. */
  get released(): Promise<void> {
    return this.#release.released;
  }

  /**
   * Unmaps the data and lets the exporter know.
   * @returns what became of it: drivers that have the dma-buf can keep it
   */
  close(wait?: ReleaseWait): Promise<ReleaseOutcome> {
    this.#finish('closed');
    return this.#release.release(wait);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The exporter wants it back: it may be kept for so long. */
  withdraw(deadlineMs: number): void {
    if (this.#end === 'closed' || this.#deadline !== undefined) return;
    this.#finish('withdrawn');
    this.#deadline = this.#options.runtime.after(deadlineMs, () => void this.#release.release());
    void this.#release.released.then(() => this.#deadline?.cancel());
  }

  /** The exporter's domain is gone. What is mapped stays, and is nobody's but ours. */
  exporterGone(): void {
    this.#finish('exporter-gone');
  }

  #onEvent(): void {
    const { offer } = this.#attachment;
    if (this.#release.state !== 'live') return;
    if (!offer.exporterLive) {
      this.#options.onExporterGone();
      this.#finish('exporter-gone');
    } else if (offer.attached !== SHARE_ATTACHED_ACCEPTED) this.#finish('turned-out');
  }

  #finish(end: ImportEnd): void {
    if (this.#end === undefined) {
      this.#end = end;
      this.#onOver(end);
    }
    this.#attachment.condition.changed();
  }

  #checkOpen(): void {
    if (this.#release.state === 'live') return;
    const reason = this.#end === 'withdrawn' ? 'withdrawn' : 'closed';
    throw new ShareError(reason, `the share ${this.id} is ${reason}`);
  }

  /** Whether frames can still come. */
  #checkProducer(): void {
    if (this.#end === 'withdrawn') {
      throw new ShareError('withdrawn', `the stream ${this.id} is withdrawn`);
    }
    if (this.#end === undefined) return;
    const what = this.#end === 'turned-out' ? 'the exporter turned us out' : 'the exporter is gone';
    throw new ShareError('exporter-gone', `${what}: no frame of ${this.id} will follow`);
  }

  #newConsumer(): FrameConsumer {
    const { offer, control, condition, channel } = this.#attachment;
    return new FrameConsumer({
      runtime: this.#options.runtime,
      offer,
      control,
      slotBytes: this.#options.offered.slotBytes,
      slots: this.#slots,
      condition,
      notify: () => channel.notify(),
      checkOpen: () => this.#checkOpen(),
      checkProducer: () => this.#checkProducer(),
      onViolation: this.#options.onViolation,
    });
  }

  #bufferStep(buffer: SharedBuffer): ReleaseStep {
    const holder = { who: 'our own mapping', pages: buffer.pages, evidence: 'is being unmapped' };
    return {
      holder,
      attempt: async () => {
        void buffer.release();
        return buffer.state === 'released' ? undefined : (buffer.holders[0] ?? holder);
      },
    };
  }
}

/** @throws ShareError `not-writable`; a dma-buf of grants is always for writing, too */
function checkRights({ offered, writable = false, dmaBuf = 'none' }: ImportOptions): void {
  if (offered.writable || !(writable || dmaBuf === 'required')) return;
  const what = writable ? 'cannot be written to' : 'cannot become a dma-buf, which is for writing';
  throw new ShareError(
    'not-writable',
    `the share ${offered.id} is offered for reading: it ${what}`,
  );
}

/** What is to be mapped, slot by slot. */
async function slotRequests(
  { domain, offered, writable = false, dmaBuf = 'none' }: ImportOptions,
  reader: OfferReader,
): Promise<FromRefsRequest[]> {
  const { exporter: domid } = offered;
  const { slots, slotPages, slotBytes, dataOffset, directoryRef } = reader.offer();
  const directory = { domid, ref: directoryRef, pages: slots * slotPages };
  const refs = await readDirectory(domain.foreign, directory);
  return Array.from({ length: slots }, (_, slot) => ({
    domid,
    refs: refs.slice(slot * slotPages, (slot + 1) * slotPages),
    writable,
    dataOffset,
    byteLength: slotBytes,
    dmaBuf,
  }));
}
