// The display buffers of one connection: the guest's pages, mapped read-only as one contiguous view.
//
// Life of a buffer: creating, live, releasing, gone; or quarantined between the last two, when it could not
// be released in time: the guest has a negative answer then, the pages are counted, and the release goes on.
// Invariants:
// - The guest's budget is charged before the directory is read; a cookie names one buffer until everything
//   about it is released, so a name that is used again never meets the remains of an older buffer.
// - A release is successful only when nothing of ours maps the guest's pages any more (trap 9).
// - Every request is answered within ANSWER_TIMEOUT_MS, and what was late is undone when it is done.

import { PAGE_SIZE } from '../abi/page.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { type ForeignMapping, GrantMapError } from '../xen/domain.ts';
import type { DmaBuf } from '../xen/memory.ts';
import { readPageDirectory } from '../xen/page-directory.ts';
import type { GuestContext } from '../xen/xenbus/driver.ts';
import { type Cookie, CookieTable, cookieText } from './cookie.ts';
import { inTime } from './deadline.ts';
import type { Framebuffer } from './framebuffers.ts';
import { checkBuffer, inferStride } from './geometry.ts';
import type { CreateRequest } from './requests.ts';

export type BufferState = 'creating' | 'live' | 'releasing' | 'quarantined' | 'gone';

export class DisplayBuffer {
  readonly cookie: Cookie;
  readonly pages: number;
  /** Bytes from one row to the next; undefined when the buffer was created without a geometry. */
  readonly stride: number | undefined;
  readonly framebuffers = new Set<Framebuffer>();
  state: BufferState = 'creating';
  /** Where the first pixel is in the buffer's memory, in bytes. */
  readonly dataOffset: number;
  readonly memory: DmaBuf | undefined;
  readonly #bufferBytes: number;
  readonly #charges: Disposable[];
  readonly #readers = new Set<Promise<void>>();
  #mapping: ForeignMapping | undefined;
  #stopWaiting: () => void = () => {};

  constructor(request: CreateRequest, charge: Disposable) {
    const { buffer, width, bufferBytes, dataOffset } = request;
    this.cookie = buffer;
    this.pages = Math.ceil(bufferBytes / PAGE_SIZE);
    this.stride = width === 0 ? undefined : inferStride(request);
    this.dataOffset = dataOffset;
    this.#bufferBytes = bufferBytes;
    this.#charges = [charge];
  }

  /** Bytes of the pixels. */
  get byteLength(): number {
    return this.#bufferBytes - this.dataOffset;
  }

  /** The pixels, not copied: what the guest asked for, without the rest of the last page. */
  get bytes(): Uint8Array {
    return this.#mapping!.bytes.subarray(this.dataOffset, this.#bufferBytes);
  }

  /** Charged for the buffer until it is gone. */
  charge(charge: Disposable): void {
    this.#charges.push(charge);
  }

  /** Takes over the mapping. */
  mapped(mapping: ForeignMapping): void {
    this.#mapping = mapping;
  }

  /** Something may read the buffer until `retired` resolves. */
  readBy(retired: Promise<void>): void {
    const reader = retired.catch(() => {}).finally(() => this.#readers.delete(reader));
    this.#readers.add(reader);
  }

  /** Resolves when nothing reads the buffer any more, or when `stopWaiting` is called. */
  unread(): Promise<void> {
    return new Promise((resolve) => {
      this.#stopWaiting = resolve;
      Promise.all(this.#readers).then(() => resolve(), resolve);
    });
  }

  /** Late readers see zeros from now on (posix/mapping.ts): for when there is nobody left to answer to. */
  stopWaiting(): void {
    this.#stopWaiting();
  }

  async unmap(): Promise<void> {
    await this.#mapping?.[Symbol.asyncDispose]();
    this.#mapping = undefined;
    for (const charge of this.#charges.splice(0)) charge[Symbol.dispose]();
  }
}

/**
 * Throws what mapping a guest's grant threw: a grant that cannot be mapped is that guest's doing.
 * @throws ProtocolViolation `bad-grant` (XEN_EINVAL), or `error` itself
 */
export function refuseBadGrant(error: unknown): never {
  if (!(error instanceof GrantMapError)) throw error;
  throw new ProtocolViolation('bad-grant', 'XEN_EINVAL', error.message);
}

export interface BuffersOptions {
  readonly runtime: Runtime;
  readonly guest: GuestContext;
}

export class Buffers {
  readonly #runtime: Runtime;
  readonly #guest: GuestContext;
  readonly #table = new CookieTable<DisplayBuffer>();
  readonly #releases = new Map<DisplayBuffer, Promise<void>>();

  constructor({ runtime, guest }: BuffersOptions) {
    this.#runtime = runtime;
    this.#guest = guest;
  }

  /** @throws ProtocolViolation `unknown-dbuf` (XEN_ENOENT) or `dbuf-busy` (XEN_EBUSY) */
  live(cookie: Cookie): DisplayBuffer {
    const buffer = this.#table.find(cookie);
    if (buffer?.state === 'live') return buffer;
    const detail = `buffer ${cookieText(cookie)}`;
    throw buffer
      ? new ProtocolViolation('dbuf-busy', 'XEN_EBUSY', `${detail} is ${buffer.state}`)
      : new ProtocolViolation('unknown-dbuf', 'XEN_ENOENT', detail);
  }

  /**
   * Maps what the directory names and adds the buffer. Resolves when it is live.
   * @throws ProtocolViolation for a bad size, cookie, directory or grant, or beyond the guest's budget
   * @throws SysError when the system has no room, or takes too long (the mapping is then undone later)
   */
  async create(request: CreateRequest): Promise<void> {
    const name = `buffer ${cookieText(request.buffer)}`;
    if (this.#table.find(request.buffer)) {
      throw new ProtocolViolation('dbuf-cookie-in-use', 'XEN_EEXIST', name);
    }
    if (request.backendAllocates) {
      const detail = `${name} is to be allocated by the backend, which this one does not offer`;
      throw new ProtocolViolation('backend-allocation', 'XEN_EOPNOTSUPP', detail);
    }
    checkBuffer(request, request.dataOffset);
    const buffer = new DisplayBuffer(request, this.#guest.charge({ buffers: 1 }));
    this.#table.add(buffer);
    const mapped = this.#map(buffer, request);
    try {
      await inTime(this.#runtime, mapped, `mapping the ${buffer.pages} pages of ${name}`);
      buffer.state = 'live';
    } catch (error) {
      if (buffer.state === 'creating') this.#undoLate(buffer, mapped);
      throw error;
    }
  }

  /**
   * Unmaps the buffer once nothing reads it. Resolves when nothing of ours maps it.
   * @throws SysError when that takes too long or fails; the buffer is in quarantine until it is released
   */
  async release(buffer: DisplayBuffer): Promise<void> {
    buffer.state = 'releasing';
    const released = this.#release(buffer);
    const context = `releasing the ${buffer.pages} pages of buffer ${cookieText(buffer.cookie)}`;
    try {
      await inTime(this.#runtime, released, context);
    } catch (error) {
      if (buffer.state === 'releasing') this.#quarantine(buffer, released);
      throw error;
    }
  }

  /** Releases everything, without waiting for readers: the outputs are closed already. */
  async close(): Promise<void> {
    const released = this.#table.values().map((buffer) => {
      const release = this.#releases.get(buffer) ?? this.#release(buffer);
      buffer.stopWaiting();
      return release;
    });
    await Promise.all(released);
  }

  async #map(buffer: DisplayBuffer, { directory }: CreateRequest): Promise<void> {
    const { domid, domain } = this.#guest;
    const { pages } = buffer;
    try {
      // Held until the mapping has charged the same itself, so that a directory is not read in vain.
      using reserved = this.#guest.charge({ pages, refs: pages });
      const refs = await readPageDirectory(domain.foreign, { domid, first: directory, pages });
      reserved[Symbol.dispose]();
      buffer.mapped(await domain.foreign.map({ domid, refs, writable: false }));
    } catch (error) {
      await buffer.unmap();
      this.#forget(buffer);
      refuseBadGrant(error);
    }
  }

  /** The guest was told that creating failed, so what comes of it is released as soon as it is there. */
  #undoLate(buffer: DisplayBuffer, mapped: Promise<void>): void {
    const released = mapped.then(
      () => this.#release(buffer),
      () => {},
    );
    this.#quarantine(buffer, released);
  }

  #release(buffer: DisplayBuffer): Promise<void> {
    const release = async () => {
      await buffer.unread();
      await buffer.unmap();
      this.#forget(buffer);
    };
    const released = release();
    this.#releases.set(buffer, released);
    return released;
  }

  /** `released` goes on in the background; when it fails, closing the connection tries again. */
  #quarantine(buffer: DisplayBuffer, released: Promise<void>): void {
    buffer.state = 'quarantined';
    this.#releases.set(buffer, released);
    const { log } = this.#guest;
    const context = { dbuf: cookieText(buffer.cookie), pages: buffer.pages };
    released.then(
      () => log.info(context, 'released from quarantine'),
      (error) => {
        this.#releases.delete(buffer);
        log.error({ ...context, error }, 'stays in quarantine');
      },
    );
    try {
      buffer.charge(this.#guest.charge({ quarantinedPages: buffer.pages }));
    } catch (error) {
      // Over that budget too: the pages stay counted as mapped, which they are.
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#guest.countRefusal(error.reason);
    }
  }

  #forget(buffer: DisplayBuffer): void {
    buffer.state = 'gone';
    this.#table.delete(buffer);
    this.#releases.delete(buffer);
  }
}
