// One share, at its exporter: offered in xenstore, opened and closed by the importer any number of times, and
// withdrawn (docs/share-protocol.md, "The life of a share").
//
// Invariants:
// - The importer is there from its session's beginning to its farewell, which its own kernel says when its
//   program dies, or until its domain is gone. Only while it is not there is anything given back.
// - One session at a time: a new number means that the old one is over, however few events we saw of it.
// - Whatever the importer writes costs it its session at most.

import assert from 'node:assert/strict';
import { SHARE_ATTACHED_ACCEPTED, SHARE_ATTACHED_REFUSED, SHARE_VERSION } from '../abi/share.ts';
import type { ProtocolViolation } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { Domain } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import {
  type Holder,
  Release,
  type ReleaseOutcome,
  type ReleaseState,
  type ReleaseStep,
} from '../zcopy/release.ts';
import { endSharedStep } from '../zcopy/shared-buffer.ts';
import { Condition, type Patience } from './condition.ts';
import { ControlPage } from './control-page.ts';
import { encodeMetadata, type ShareMetadata } from './metadata.ts';
import type { Answer, OfferNode } from './nodes.ts';
import { OfferWriter } from './offer-page.ts';
import { FrameProducer, type WhenFull } from './producer.ts';
import { ShareError } from './share-error.ts';
import type { ShareId } from './share-id.ts';
import { makeParts, ourStep, type ShareParts } from './share-parts.ts';
import type { ShareMemory } from './slots.ts';

/** `offered`: nobody has it open. */
export type ExportState = 'offered' | 'open' | 'withdrawing' | 'released';

/** The share's node in xenstore. */
export interface ShareNode {
  write(offer: OfferNode): Promise<void>;
  remove(): Promise<void>;
}

export interface ExportOptions {
  readonly runtime: Runtime;
  readonly domain: Pick<Domain, 'grants' | 'events'>;
  readonly id: ShareId;
  /** Who may open it. */
  readonly to: DomId;
  readonly writable: boolean;
  readonly memory: ShareMemory;
  readonly metadata: ShareMetadata;
  /** Of a stream: how many slots new pages are for, and what a full one does. */
  readonly stream?: { readonly slots: number; readonly whenFull: WhenFull } | undefined;
  /** Of a buffer: writes what the importer is to find. */
  readonly fill?: ((bytes: Uint8Array) => Promise<void>) | undefined;
  readonly node: ShareNode;
  /** Which program we are, for those that come after us. */
  readonly owner?: string | undefined;
  readonly onRefusal: (reason: string) => void;
}

/** How long the release of a share is waited for at least, so that a prompt one is seen to be done. */
const RELEASE_GRACE_MS = 250;

export class ExportedShare {
  readonly id: ShareId;
  readonly to: DomId;
  readonly writable: boolean;
  readonly slotBytes: number;
  readonly #options: ExportOptions;
  readonly #parts: ShareParts;
  readonly #control: ControlPage;
  readonly #offer: OfferWriter;
  readonly #release: Release;
  readonly #condition: Condition;
  readonly #producer: FrameProducer | undefined;
  readonly #refused = new Map<string, number>();
  readonly #withdrawal: (() => void)[] = [];
  #metadata: ShareMetadata;
  #generation: number;
  #attached = false;
  /** Of the importer that was answered last; 0 before the first. */
  #session = 0;
  #withdrawing = false;
  #answer: Answer | undefined;
  #opens = 0;

  private constructor(options: ExportOptions, parts: ShareParts) {
    const { runtime, id, to, writable, metadata, stream } = options;
    this.#options = options;
    this.#parts = parts;
    this.id = id;
    this.to = to;
    this.writable = writable;
    this.slotBytes = parts.slots.slotBytes;
    this.#condition = new Condition(runtime);
    this.#control = new ControlPage(parts.control.bytes);
    this.#control.name(id);
    this.#offer = new OfferWriter(parts.offer.bytes, this.#description());
    this.#metadata = metadata;
    this.#generation = this.#offer.setMetadata(encodeMetadata(metadata));
    this.#producer = stream && this.#newProducer(stream.whenFull);
    this.#release = new Release({ runtime, steps: this.#releaseSteps() });
    this.#offer.setLive();
  }

  /** Makes a share and offers it. @throws SysError, ShareError `oversized-metadata`; nothing is left then */
  static async open(options: ExportOptions): Promise<ExportedShare> {
    encodeMetadata(options.metadata);
    const undo: ReleaseStep[] = [];
    try {
      let onEvent = () => {};
      const slots = options.stream?.slots ?? 1;
      const parts = await makeParts({ ...options, slots, undo, onEvent: () => onEvent() });
      const share = new ExportedShare(options, parts);
      onEvent = () => share.#onEvent();
      await options.fill?.(share.bytes);
      await options.node.write(share.#node());
      return share;
    } catch (error) {
      await new Release({ runtime: options.runtime, steps: undo.reverse() }).release();
      throw error;
    }
  }

  get metadata(): ShareMetadata {
    return this.#metadata;
  }

  /** The memory, to be written, of what is no stream. @throws AssertionError once it is released */
  get bytes(): Uint8Array {
    const [bytes] = this.#parts.slots.bytes();
    assert(bytes !== undefined && this.#producer === undefined, 'the bytes of a stream');
    return bytes;
  }

  /** The writing end. @throws AssertionError unless it is a stream */
  get producer(): FrameProducer {
    assert(this.#producer !== undefined, `the share ${this.id} is no stream`);
    return this.#producer;
  }

  get state(): ExportState {
    if (this.#release.state === 'released') return 'released';
    if (this.#withdrawing) return 'withdrawing';
    return this.#attached ? 'open' : 'offered';
  }

  /** Where the giving back stands: `quarantined` while the importer keeps what was withdrawn. */
  get releaseState(): ReleaseState {
    return this.#release.state;
  }

  get holders(): readonly Holder[] {
    return this.#release.holders;
  }

  /** Resolves when the last mapping is gone and everything is given back; never rejects. */
  get released(): Promise<void> {
    return this.#release.released;
  }

  /** How often it was opened. */
  get opens(): number {
    return this.#opens;
  }

  /** What the importer was refused, by reason; `second-importer` is its own count. */
  get refused(): Readonly<Record<string, number>> {
    const turnedAway = this.#release.state === 'live' ? this.#control.turnedAway : 0;
    const seconds = turnedAway === 0 ? {} : { 'second-importer': turnedAway };
    return { ...Object.fromEntries(this.#refused), ...seconds };
  }

  /**
   * Resolves when the importer has it open.
   * @throws ShareError `refused` with the importer's reason, `withdrawn`, `timed-out`
   */
  opened(patience?: Patience): Promise<void> {
    const look = () => {
      if (this.#attached) return true;
      if (this.#withdrawing) throw this.#withdrawn();
      if (this.#answer?.kind !== 'refused') return undefined;
      const { reason } = this.#answer;
      const detail = `domain ${this.to} refuses the share ${this.id}: ${reason}`;
      throw new ShareError(reason === 'over-budget' ? 'over-budget' : 'refused', detail);
    };
    return this.#condition
      .until(look, `domain ${this.to} opens the share`, patience)
      .then(() => {});
  }

  /** Resolves when nobody has it open. @throws ShareError `timed-out` */
  closed(patience?: Patience): Promise<void> {
    const look = () => (this.#attached ? undefined : true);
    return this.#condition
      .until(look, `domain ${this.to} closes the share`, patience)
      .then(() => {});
  }

  /** Replaces the metadata, of which the importer is told. @throws ShareError `oversized-metadata`, `withdrawn` */
  async update(metadata: ShareMetadata): Promise<void> {
    this.#checkOpen();
    const encoded = encodeMetadata(metadata);
    this.#metadata = metadata;
    this.#generation = this.#offer.setMetadata(encoded);
    await this.#options.node.write(this.#node());
  }

  /**
   * Asks the importer to close it, which may hold it for `deadlineMs`, and gives everything back.
   * @returns what became of it by then; what the importer keeps is in quarantine, and `released` tells its end
   * @throws the signal's reason, which ends the waiting alone
   */
  async withdraw({ deadlineMs = 0, signal }: WithdrawOptions = {}): Promise<ReleaseOutcome> {
    assert(Number.isInteger(deadlineMs) && deadlineMs >= 0, `a deadline of ${deadlineMs} ms`);
    if (!this.#withdrawing) await this.#beginToWithdraw(deadlineMs);
    const timeoutMs = deadlineMs + RELEASE_GRACE_MS;
    return this.#release.release(signal === undefined ? { timeoutMs } : { timeoutMs, signal });
  }

  /** Calls `listener` when it begins to be withdrawn. */
  onWithdrawal(listener: () => void): void {
    this.#withdrawal.push(listener);
  }

  /** What the importer's node says now; undefined when it says nothing. */
  answered(answer: Answer | undefined): void {
    this.#answer = answer;
    this.#condition.changed();
  }

  /** The importer's domain is gone, which says no farewell. */
  importerGone(): void {
    this.#answer = undefined;
    if (this.#attached) this.#detach();
    this.#condition.changed();
  }

  async #beginToWithdraw(deadlineMs: number): Promise<void> {
    this.#withdrawing = true;
    for (const listener of this.#withdrawal.splice(0)) listener();
    this.#condition.changed();
    if (!this.#attached) return;
    try {
      await this.#options.node.write({ ...this.#node(), withdrawMs: deadlineMs });
    } catch (error) {
      // Not asked, it is waited for all the same.
      this.#options.runtime.log.warn({ err: error, share: this.id }, 'cannot ask for a share back');
    }
  }

  #onEvent(): void {
    if (this.#release.state === 'released') return;
    this.#lookForImporter();
    this.#producer?.collect();
    this.#condition.changed();
  }

  #lookForImporter(): void {
    const live = this.#control.importerLive;
    const { session } = this.#control;
    if (this.#attached && (!live || session !== this.#session)) this.#detach();
    if (live && session !== this.#session) this.#attach(session);
  }

  #attach(session: number): void {
    this.#session = session;
    const { version } = this.#control;
    const reason = this.#withdrawing
      ? 'withdrawn'
      : version === SHARE_VERSION
        ? undefined
        : 'unsupported-version';
    if (reason === undefined) {
      this.#attached = true;
      this.#opens += 1;
    } else {
      this.#countRefusal(reason);
    }
    this.#offer.answer(session, reason ? SHARE_ATTACHED_REFUSED : SHARE_ATTACHED_ACCEPTED);
    this.#parts.channel.notify();
  }

  #detach(): void {
    this.#attached = false;
    this.#producer?.consumerGone();
    this.#release.hurry();
  }

  /** The importer broke the rules: its session is over, whether it goes or not. */
  #turnOut(violation: ProtocolViolation): void {
    this.#countRefusal(violation.reason);
    this.#options.runtime.log.warn({ share: this.id, to: this.to }, violation.message);
    this.#offer.answer(this.#session, SHARE_ATTACHED_REFUSED);
    this.#producer?.consumerGone();
    this.#parts.channel.notify();
  }

  #countRefusal(reason: string): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
    this.#options.onRefusal(reason);
  }

  #checkOpen(): void {
    if (this.#withdrawing) throw this.#withdrawn();
  }

  #withdrawn(): ShareError {
    return new ShareError('withdrawn', `the share ${this.id} is withdrawn`);
  }

  #node(): OfferNode {
    const { owner } = this.#options;
    const { offer } = this.#parts;
    return {
      ...(owner !== undefined && { owner }),
      versions: [SHARE_VERSION],
      offerRefs: [offer.refs[0]!, offer.refs[1]!],
      port: this.#parts.channel.port,
      generation: this.#generation,
    };
  }

  #description() {
    const { slots, directory, control } = this.#parts;
    const { slotPages, slotBytes, dataOffset } = slots;
    return {
      id: this.id,
      writable: this.writable,
      stream: this.#options.stream !== undefined,
      slots: slots.refs.length / slotPages,
      slotPages,
      slotBytes,
      dataOffset,
      directoryRef: directory.refs[0]!,
      controlRef: control.refs[0]!,
    };
  }

  #newProducer(whenFull: WhenFull): FrameProducer {
    const { channel, slots } = this.#parts;
    return new FrameProducer({
      runtime: this.#options.runtime,
      offer: this.#offer,
      control: this.#control,
      slots: slots.bytes(),
      whenFull,
      condition: this.#condition,
      notify: () => channel.notify(),
      checkOpen: () => this.#checkOpen(),
      onViolation: (violation) => this.#turnOut(violation),
    });
  }

  #releaseSteps(): ReleaseStep[] {
    const { slots, directory, offer, control, channel } = this.#parts;
    return [
      this.#importerStep(),
      ourStep('the node of the share', () => this.#options.node.remove()),
      ...slots.steps,
      endSharedStep(directory),
      endSharedStep(control),
      endSharedStep(offer),
      ourStep('the event channel', () => channel[Symbol.asyncDispose]()),
    ];
  }

  /** Waits until the importer has let go, by its own or its kernel's word. */
  #importerStep(): ReleaseStep {
    const holder: Holder = {
      who: `domain ${this.to}`,
      pages: this.#parts.slots.refs.length,
      evidence: 'it has not closed the share',
    };
    return { holder, attempt: async () => (this.#attached ? holder : undefined) };
  }
}

export interface WithdrawOptions {
  /** How long the importer may keep it. */
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}
