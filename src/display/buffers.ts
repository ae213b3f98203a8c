// The display buffers of one connection: pages of the guest mapped here, or memory of ours lent to the guest
// (`be-alloc`), each under the guest's cookie, by the core in zcopy/.
//
// Invariants:
// - The guest's budget is charged before the directory is read; a cookie names one buffer until everything
//   about it is released, so a name that is used again never meets the remains of an older buffer.
// - A destroy is answered with success only when nothing of ours maps the guest's pages, and the guest maps
//   nothing of ours, any more (trap 9); else the buffer is in quarantine, listed with who holds it.
// - Every request is answered within ANSWER_TIMEOUT_MS, and what was late is undone when it is done.
// - The rows of a buffer of ours are as long as the guest believes, or there is no buffer (trap 18).

import { PAGE_SIZE } from '../abi/page.ts';
import type { Work } from '../runtime/confinement.ts';
import { ProtocolViolation, SysError } from '../runtime/errors.ts';
import { type Runtime, turn } from '../runtime/runtime.ts';
import { GrantMapError } from '../xen/domain.ts';
import type { LocalBuffer } from '../xen/memory.ts';
import { fillPageDirectory, readPageDirectory } from '../xen/page-directory.ts';
import type { GuestContext } from '../xen/xenbus/driver.ts';
import { allocateFor, type MemorySource } from '../zcopy/allocator.ts';
import type { Holder } from '../zcopy/release.ts';
import type { SharedBuffer } from '../zcopy/shared-buffer.ts';
import { Zcopy } from '../zcopy/zcopy.ts';
import { type Cookie, CookieTable, cookieText } from './cookie.ts';
import { ANSWER_TIMEOUT_MS, inTime } from './deadline.ts';
import { DisplayBuffer } from './display-buffer.ts';
import { checkBuffer, inferStride } from './geometry.ts';
import type { DisplayOutput } from './output.ts';
import type { CreateRequest } from './requests.ts';

/** How long the answer to a creation that failed waits for its memory; what takes longer goes on in quarantine. */
const UNDO_TIMEOUT_MS = 500;
/** How long the end of a connection waits for each buffer; what takes longer goes on in quarantine. */
const CLOSE_TIMEOUT_MS = 500;

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
  /** For what nobody waits for: see `BackendDevice.confined`. */
  readonly confined: (work: Work<void>) => Work<void>;
  readonly output: Pick<DisplayOutput, 'allocate' | 'contiguity' | 'importsBuffers'>;
  /** Whether the guest may ask for memory of ours: the display is configured with `be-alloc`. */
  readonly lends: boolean;
}

export class Buffers {
  readonly #runtime: Runtime;
  readonly #guest: GuestContext;
  readonly #confined: BuffersOptions['confined'];
  readonly #output: BuffersOptions['output'];
  readonly #lends: boolean;
  readonly #zcopy: Zcopy;
  readonly #table = new CookieTable<DisplayBuffer>();

  constructor({ runtime, guest, confined, output, lends }: BuffersOptions) {
    this.#runtime = runtime;
    this.#guest = guest;
    this.#confined = confined;
    this.#output = output;
    this.#lends = lends;
    this.#zcopy = new Zcopy({
      runtime,
      domain: guest.domain,
      onRemains: (remains) => guest.track(remains),
    });
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
   * Maps what the directory names, or allocates a buffer and names its pages there. Resolves when it is live.
   * @throws ProtocolViolation for a bad size, cookie, directory or grant, or beyond the guest's budget
   * @throws SysError when the system has no room, or takes too long (the buffer is then undone later). Memory that
   *   the guest got at before the failure is in quarantine, as after a destroy
   */
  async create(request: CreateRequest): Promise<void> {
    const name = `buffer ${cookieText(request.buffer)}`;
    if (this.#table.find(request.buffer)) {
      throw new ProtocolViolation('dbuf-cookie-in-use', 'XEN_EEXIST', name);
    }
    if (request.backendAllocates && !this.#lends) {
      const detail = `${name} is to be allocated by the backend, but be-alloc is not set for the display`;
      throw new ProtocolViolation('backend-allocation', 'XEN_EOPNOTSUPP', detail);
    }
    checkBuffer(request, request.dataOffset);
    const charge = this.#guest.charge({ buffers: 1, bytes: request.bufferBytes });
    const buffer = new DisplayBuffer(request, { charge, confined: this.#confined });
    this.#table.add(buffer);
    this.#guest.track(buffer);
    void buffer.gone.then(() => this.#table.delete(buffer));
    const made = this.#make(buffer, request);
    try {
      await inTime(this.#runtime, made, `making the ${buffer.pages} pages of ${name}`);
    } catch (error) {
      if (buffer.state === 'creating') buffer.giveUp();
      throw error;
    }
  }

  /**
   * Gives the buffer back once nothing reads it. Resolves when nothing of ours maps it, and the guest nothing
   * of ours.
   * @throws SysError ETIMEDOUT naming who still holds it; the buffer is in quarantine until it is released
   */
  async release(buffer: DisplayBuffer): Promise<void> {
    const outcome = await buffer.release({ timeoutMs: ANSWER_TIMEOUT_MS });
    if (outcome.state === 'released') return;
    const name = cookieText(buffer.cookie);
    this.#guest.log.warn({ dbuf: name, holders: outcome.holders }, 'a buffer is in quarantine');
    void buffer.gone.then(() => this.#guest.log.info({ dbuf: name }, 'released from quarantine'));
    throw new SysError({
      call: `${ANSWER_TIMEOUT_MS} ms of waiting`,
      errnoName: 'ETIMEDOUT',
      context: `releasing buffer ${name}: held by ${outcome.holders.map(describe).join(', ')}`,
    });
  }

  /** Releases everything, without waiting for readers: the outputs are closed already. */
  async close(): Promise<void> {
    await Promise.all(
      this.#table.values().map((buffer) => {
        buffer.abandonReaders();
        return buffer.release({ timeoutMs: CLOSE_TIMEOUT_MS });
      }),
    );
  }

  async #make(buffer: DisplayBuffer, request: CreateRequest): Promise<void> {
    try {
      using _work = this.#guest.charge({ requests: 1 });
      if (request.backendAllocates) await this.#lend(buffer, request);
      else buffer.holds(await this.#import(buffer, request));
      buffer.made();
    } catch (error) {
      await buffer.failed({ timeoutMs: UNDO_TIMEOUT_MS });
      refuseBadGrant(error);
    }
  }

  /** The guest's own pages. */
  async #import(
    buffer: DisplayBuffer,
    { directory, bufferBytes, dataOffset }: CreateRequest,
  ): Promise<SharedBuffer> {
    const { domid, domain } = this.#guest;
    const pages = Math.ceil(bufferBytes / PAGE_SIZE);
    // Held until the mapping has charged the same itself, so that a directory is not read in vain.
    using reserved = this.#guest.charge({ pages, refs: pages });
    this.#guest.spend('mappedPagesPerSecond', pages);
    const refs = await readPageDirectory(domain.foreign, { domid, first: directory, pages });
    // Reading thousands of references took its time, and so will mapping them.
    await turn(this.#runtime);
    reserved[Symbol.dispose]();
    // The guest was told that there is no buffer: its references may mean something else by now.
    if (buffer.state !== 'creating') throw givenUp(buffer);
    return this.#zcopy.fromRefs({
      domid,
      refs,
      dataOffset,
      byteLength: bufferBytes - dataOffset,
      dmaBuf: this.#output.importsBuffers ? 'if-possible' : 'none',
    });
  }

  /** Memory of ours, its references written where the guest will look for them. */
  async #lend(buffer: DisplayBuffer, request: CreateRequest): Promise<void> {
    const { directory } = request;
    const { domid, domain } = this.#guest;
    const { pages, dataOffset, byteLength } = buffer;
    using reserved = this.#guest.charge({ pages, refs: pages });
    this.#guest.spend('mappedPagesPerSecond', pages);
    const memory = await this.#allocate(request, pages);
    reserved[Symbol.dispose]();
    const shared = await this.#zcopy.toRefs({ domid, memory, dataOffset, byteLength });
    buffer.holds(shared);
    const refs = shared.refs.slice(0, pages);
    await fillPageDirectory(domain.foreign, { domid, first: directory, refs });
  }

  #allocate(request: CreateRequest, pages: number): Promise<LocalBuffer> {
    const { domid } = this.#guest;
    const { width, height, bitsPerPixel } = request;
    const output: MemorySource = {
      name: 'the output',
      allocate: async () => {
        if (width === 0) return undefined;
        const stride = inferStride(request);
        return this.#output.allocate?.({ domid, width, height, bitsPerPixel, stride, pages });
      },
    };
    const pool: MemorySource = {
      name: `the pool of domain ${domid}`,
      allocate: async () => (await this.#guest.pool()).allocate(pages),
    };
    const host: MemorySource = {
      name: 'the host',
      allocate: (need) => this.#guest.domain.memory.allocate(need),
    };
    const { contiguity = 'none' } = this.#output;
    // Outside of the pool a guest gets only what the pool cannot have.
    const sources = contiguity === 'none' ? [output, pool] : [output, host];
    return allocateFor({ pages, contiguity }, sources);
  }
}

/** Why a creation that nobody waits for any more ends before anything is mapped. */
function givenUp({ name }: DisplayBuffer): SysError {
  const context = `making buffer ${name}, which was given up meanwhile`;
  return new SysError({ call: 'DBUF_CREATE', errnoName: 'ECANCELED', context });
}

function describe({ who, pages, evidence }: Holder): string {
  return `${who} (${pages} pages; ${evidence})`;
}
