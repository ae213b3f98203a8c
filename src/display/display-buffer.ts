// One display buffer: what the guest calls it, the geometry that it declared, and the memory behind it once
// that is there. Life: creating, live, releasing, released; quarantined while it is released and still held.
//
// Invariant: `gone` resolves once, when nothing of the buffer is held and all of its charges are back.

import { PAGE_SIZE } from '../abi/page.ts';
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
  #finish: () => void = () => {};
  #shared: SharedBuffer | undefined;
  /** Before the memory is there: whether it is waited for, came too late, or never came. */
  #making: 'creating' | 'quarantined' | 'released' = 'creating';

  constructor(request: CreateRequest, charge: Disposable) {
    const { buffer, width, bufferBytes, dataOffset } = request;
    this.cookie = buffer;
    this.pages = Math.ceil(bufferBytes / PAGE_SIZE);
    this.direction = request.backendAllocates ? 'to-guest' : 'from-guest';
    this.stride = width === 0 ? undefined : inferStride(request);
    this.dataOffset = dataOffset;
    this.byteLength = bufferBytes - dataOffset;
    this.#charge = charge;
    this.gone = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  get name(): string {
    return cookieText(this.cookie);
  }

  get state(): HeldBuffer['state'] {
    return this.#shared?.state ?? this.#making;
  }

  get contiguity(): Contiguity | undefined {
    return this.#shared?.contiguity;
  }

  get dmaBuf(): boolean {
    return this.#shared?.memory !== undefined;
  }

  get holders(): readonly Holder[] {
    if (this.#shared !== undefined) return this.#shared.holders;
    if (this.#making !== 'quarantined') return [];
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

  /** The memory is there. When that came too late, it is given back. */
  made(shared: SharedBuffer): void {
    this.#shared = shared;
    void shared.released.then(() => this.#end());
    if (this.#making === 'quarantined') void shared.release({ timeoutMs: 0 });
  }

  /** There will be no memory. */
  failed(): void {
    this.#making = 'released';
    this.#end();
  }

  /** The guest was told that creating failed: what comes of it is released as soon as it is there. */
  undoWhenMade(): void {
    this.#making = 'quarantined';
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
    if (this.#shared === undefined) {
      if (this.#making === 'creating') this.undoWhenMade();
      return { state: 'quarantined', holders: this.holders };
    }
    const outcome = await this.#shared.release(wait);
    if (outcome.state === 'released') await this.gone;
    return outcome;
  }

  #end(): void {
    this.#charge[Symbol.dispose]();
    this.#finish();
  }
}
