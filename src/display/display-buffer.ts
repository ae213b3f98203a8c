// One display buffer: what the guest calls it, the geometry that it declared, and the memory behind it once
// that is there. Life: creating, live, releasing, released; quarantined while it is released and still held.
//
// Invariants:
// - `gone` resolves once, when its creation is over, nothing of the buffer is held and all charges are back.
// - Memory is known here from its first moment, so that whoever gets at it before the buffer is live, as a guest
//   that guesses references, is listed as its holder.

import { PAGE_SIZE } from '../abi/page.ts';
import type { Work } from '../runtime/confinement.ts';
import type { Contiguity, DmaBuf } from '../xen/memory.ts';
import type { HeldBuffer } from '../xen/xenbus/driver.ts';
import type { Holder, ReleaseOutcome, ReleaseWait } from '../zcopy/release.ts';
import type { SharedBuffer } from '../zcopy/shared-buffer.ts';
import { type Cookie, cookieText } from './cookie.ts';
import type { Framebuffer } from './framebuffers.ts';
import { inferStride } from './geometry.ts';
import type { CreateRequest } from './requests.ts';

export class DisplayBuffer implements HeldBuffer {
  readonly cookie: Cookie;
  readonly pages: number;
  readonly direction: HeldBuffer['direction'];
  /** Bytes from one row to the next; undefined when the buffer was created without a geometry. */
  readonly stride: number | undefined;
  /** Where the first pixel is in the buffer's memory, in bytes. */
  readonly dataOffset: number;
  /** Bytes of the pixels. */
  readonly byteLength: number;
  readonly framebuffers = new Set<Framebuffer>();
  readonly gone: Promise<void>;
  readonly #charge: Disposable;
  readonly #over: Work<void>;
  #finish: () => void = () => {};
  #shared: SharedBuffer | undefined;
  /** Whether the creation is waited for, given up and still under way, or over. */
  #making: 'creating' | 'given-up' | 'over' = 'creating';

  /** `confined` as `BackendDevice.confined`, for what nobody waits for. */
  constructor(
    request: CreateRequest,
    { charge, confined }: { charge: Disposable; confined: (work: Work<void>) => Work<void> },
  ) {
    const { buffer, width, bufferBytes, dataOffset } = request;
    this.cookie = buffer;
    this.pages = Math.ceil(bufferBytes / PAGE_SIZE);
    this.direction = request.backendAllocates ? 'to-guest' : 'from-guest';
    this.stride = width === 0 ? undefined : inferStride(request);
    this.dataOffset = dataOffset;
    this.byteLength = bufferBytes - dataOffset;
    this.#charge = charge;
    this.#over = confined(() => this.#endWhenOver());
    this.gone = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  get name(): string {
    return cookieText(this.cookie);
  }

  get state(): HeldBuffer['state'] {
    if (this.#making === 'creating') return 'creating';
    const state = this.#shared?.state ?? 'released';
    return state === 'released' && this.#making === 'given-up' ? 'quarantined' : state;
  }

  get contiguity(): Contiguity | undefined {
    return this.#shared?.contiguity;
  }

  get dmaBuf(): boolean {
    return this.#shared?.memory !== undefined;
  }

  get holders(): readonly Holder[] {
    const holders = this.#shared?.holders ?? [];
    if (holders.length > 0 || this.#making !== 'given-up') return holders;
    return [{ who: 'our own creation of it', pages: this.pages, evidence: 'is not done yet' }];
  }

  /** The pixels, not copied: what the guest asked for, without the rest of the last page. */
  get bytes(): Uint8Array {
    return this.#shared!.bytes;
  }

  /** For outputs that hand the memory to a driver. */
  get memory(): DmaBuf | undefined {
    return this.#shared?.memory;
  }

  /** The memory is there, and the buffer not live yet. When that came too late, it is given back. */
  holds(shared: SharedBuffer): void {
    this.#shared = shared;
    void shared.released.then(this.#over);
    if (this.#making === 'given-up') void shared.release({ timeoutMs: 0 });
  }

  /** The creation is over: the buffer is live, unless it was given up meanwhile. */
  made(): void {
    this.#making = 'over';
    this.#endWhenOver();
  }

  /** The creation has failed: gives back what memory there is, which may be in quarantine then. */
  async failed(wait: ReleaseWait): Promise<void> {
    this.#making = 'over';
    await this.#shared?.release(wait);
    this.#endWhenOver();
  }

  /** The guest was told that creating failed: what came or comes of it is released. */
  giveUp(): void {
    this.#making = 'given-up';
    void this.#shared?.release({ timeoutMs: 0 });
  }

  /** Something may read the buffer until `retired` resolves. */
  readBy(retired: Promise<void>): void {
    this.#shared?.readBy(retired);
  }

  /** Late readers see zeros from now on: for when there is nobody left to answer to. */
  abandonReaders(): void {
    this.#shared?.abandonReaders();
  }

  /** Gives the memory back; see `Release.release`. A buffer that is still being made undoes itself. */
  async release(wait: ReleaseWait): Promise<ReleaseOutcome> {
    if (this.#making === 'creating') this.#making = 'given-up';
    const outcome = await this.#shared?.release(wait);
    if (outcome?.state === 'quarantined') return outcome;
    if (this.#making === 'given-up') return { state: 'quarantined', holders: this.holders };
    await this.gone;
    return { state: 'released' };
  }

  #endWhenOver(): void {
    if (this.#making !== 'over' || (this.#shared && this.#shared.state !== 'released')) return;
    this.#charge[Symbol.dispose]();
    this.#finish();
  }
}
