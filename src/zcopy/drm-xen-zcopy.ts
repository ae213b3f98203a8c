// The interface of drm/xen-zcopy (2018), for those who know it: an opened device with its three calls, what its
// users did around them (PRIME, GEM_CLOSE), its names and its errors, over the core. Arguments are named as
// in src/abi/xen-zcopy-drm.ts. Wherever that driver is known to have been wrong, this one is not:
// test/zcopy/drm-xen-zcopy.test.ts has a test for each.
//
// Invariants:
// - A call either does everything or leaves nothing; numbers are reserved before anything is mapped.
// - A wait handle is not a GEM handle and follows none: it names one buffer until that is freed, and numbers
//   come in a row, so that an old one is unknown and never another buffer's.
// - Closing the device closes every handle; wait handles go on until their buffers are freed.

import { messageOf, ProtocolViolation } from '../runtime/errors.ts';
import { type Runtime, withTimeout } from '../runtime/runtime.ts';
import { GrantMapError } from '../xen/domain.ts';
import type { Gref } from '../xen/ids.ts';
import type { DmaBuf, LocalBuffer } from '../xen/memory.ts';
import {
  type DumbGeometry,
  type DumbSize,
  dumbSize,
  grefsFor,
  isU32,
  otherEnd,
  refused,
} from './drm-dumb.ts';
import { ForeignObject, type GemObject, type GemRelease, ImportedObject } from './drm-object.ts';
import { Handles } from './handles.ts';
import type { SharedBuffer } from './shared-buffer.ts';
import { pagesOf, type SharingDomain, Zcopy } from './zcopy.ts';

export type { DumbGeometry } from './drm-dumb.ts';
export type { GemRelease } from './drm-object.ts';

const FROM_REFS = 'DRM_IOCTL_XEN_ZCOPY_DUMB_FROM_REFS';
const TO_REFS = 'DRM_IOCTL_XEN_ZCOPY_DUMB_TO_REFS';
const WAIT_FREE = 'DRM_IOCTL_XEN_ZCOPY_DUMB_WAIT_FREE';
const GEM_CLOSE = 'DRM_IOCTL_GEM_CLOSE';
const MAP_DUMB = 'DRM_IOCTL_MODE_MAP_DUMB';
const FD_TO_HANDLE = 'DRM_IOCTL_PRIME_FD_TO_HANDLE';
const HANDLE_TO_FD = 'DRM_IOCTL_PRIME_HANDLE_TO_FD';

/** GEM handles of one opened device, unless it is told otherwise. */
const DEFAULT_MAX_HANDLES = 4096;
/** Buffers of one opened device that are not freed yet, those of closed handles included. */
const MAX_WAIT_HANDLES = 1 << 16;
const LAST_HANDLE = 0xffff_ffff;
/** How long closing the device waits for what others still hold. */
const CLOSE_TIMEOUT_MS = 1000;

export interface DumbFromRefs {
  readonly num_grefs: number;
  /** One for each page of the buffer. */
  readonly grefs: readonly number[];
  /** The granting domain. */
  readonly otherend_id: number;
  readonly dumb: DumbGeometry;
}

/** A buffer, as drm_mode_create_dumb describes it. */
export interface Dumb extends Required<DumbGeometry>, DumbSize {
  /** GEM handle. */
  readonly handle: number;
}

export interface DumbToRefs {
  /** As many as the buffer has pages. */
  readonly num_grefs: number;
  /** The domain that may map them. */
  readonly otherend_id: number;
  /** Of a buffer that was imported. */
  readonly handle: number;
}

export interface DumbWaitFree {
  readonly wait_handle: number;
  /** Milliseconds. */
  readonly wait_to_ms: number;
}

export interface DrmXenZcopyOptions {
  readonly runtime: Runtime;
  /** Used and not owned. */
  readonly domain: SharingDomain;
  readonly maxHandles?: number;
}

/** One opened device. */
export class DrmXenZcopy implements AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #domain: SharingDomain;
  readonly #zcopy: Zcopy;
  readonly #objects: Handles<GemObject>;
  readonly #waited = new Handles<SharedBuffer>({
    capacity: MAX_WAIT_HANDLES,
    last: LAST_HANDLE,
    order: 'cyclic',
  });
  readonly #ending = new Set<GemRelease>();
  #open = true;

  constructor({ runtime, domain, maxHandles = DEFAULT_MAX_HANDLES }: DrmXenZcopyOptions) {
    this.#runtime = runtime;
    this.#domain = domain;
    this.#zcopy = new Zcopy({ runtime, domain });
    this.#objects = new Handles({ capacity: maxHandles, last: LAST_HANDLE, order: 'lowest' });
  }

  /**
   * Makes a buffer of the pages that a domain granted: mapped for reading, and for other drivers where host and
   * grants permit it (`primeHandleToBuffer`).
   * @throws SysError EINVAL for a geometry without a size, a number of grants other than the buffer has
   *   pages, or a grant that cannot be mapped (the message says which); ENOMEM without room; EBADF
   */
  async dumbFromRefs(request: DumbFromRefs): Promise<{ dumb: Dumb; wait_handle: number }> {
    this.#checkOpen(FROM_REFS);
    const { dumb } = request;
    const { pitch, size } = dumbSize(FROM_REFS, dumb);
    const refs = grefsFor(FROM_REFS, { ...request, pages: pagesOf(size) });
    const domid = otherEnd(FROM_REFS, request.otherend_id);
    const handle = reserve(FROM_REFS, this.#objects);
    const wait_handle = this.#reserveWait(handle);
    try {
      const parts = { domid, refs, byteLength: size, dmaBuf: 'if-possible' } as const;
      const buffer = await this.#zcopy.fromRefs(parts).catch(asDriver(FROM_REFS));
      this.#checkStillOpen(FROM_REFS, buffer);
      this.#enter({ handle, wait_handle, buffer });
    } catch (error) {
      this.#objects.delete(handle);
      this.#waited.delete(wait_handle);
      throw error;
    }
    return { dumb: { flags: 0, ...dumb, handle, pitch, size }, wait_handle };
  }

  /**
   * Grants every page of an imported buffer for writing, once: to whom it is granted, it stays so until its
   * handle is closed.
   * @returns the references, in the order of the pages
   * @throws SysError EINVAL for an unknown handle, one of DUMB_FROM_REFS, one that is closed meanwhile, or
   *   a number of grants other than the buffer has pages; EBUSY when it is granted already; ENOSPC without
   *   grant entries; EBADF. The buffer stays as it was.
   */
  async dumbToRefs(request: DumbToRefs): Promise<{ grefs: readonly Gref[] }> {
    this.#checkOpen(TO_REFS);
    const { num_grefs, otherend_id, handle } = request;
    const object = this.#object(TO_REFS, handle);
    const domid = otherEnd(TO_REFS, otherend_id);
    const granting = object.grant(TO_REFS, { domid, num_grefs });
    return { grefs: await granting.catch(asDriver(TO_REFS)) };
  }

  /**
   * Waits until a buffer of DUMB_FROM_REFS is freed: its handle is closed, nobody who imported it has it any
   * more, and its grants are unmapped.
   * @throws SysError ENOENT when there is no such buffer, or not any more; ETIMEDOUT, after which it may be
   *   waited for again; EINVAL for a time that is none
   */
  async dumbWaitFree({ wait_handle, wait_to_ms }: DumbWaitFree): Promise<void> {
    if (!isU32(wait_to_ms)) throw refused(WAIT_FREE, 'EINVAL', `${wait_to_ms} milliseconds`);
    const buffer = this.#waited.get(wait_handle);
    if (buffer === undefined) {
      throw refused(
        WAIT_FREE,
        'ENOENT',
        `wait handle ${wait_handle} names no buffer, or a freed one`,
      );
    }
    const onTimeout = () => stillHeld(buffer, { wait_handle, wait_to_ms });
    const wait = { timeoutMs: wait_to_ms, onTimeout };
    await withTimeout(this.#runtime, buffer.released, wait).catch(async (error: unknown) => {
      // Whoever gave up waiting leaves the buffer in quarantine, unless its handle is not even closed.
      if (buffer.state === 'live') throw error;
      const { state } = await buffer.release({ timeoutMs: 0 });
      if (state !== 'released') throw error;
    });
  }

  /**
   * Imports a buffer of this host, which becomes the handle's own: closing the handle frees it. Importing what
   * is imported already gives the same handle.
   * @throws SysError ENOMEM without a handle, EBADF; the memory stays the caller's then
   */
  primeBufferToHandle(memory: LocalBuffer): number {
    this.#checkOpen(FD_TO_HANDLE);
    for (const [handle, object] of this.#objects.entries) {
      if (object instanceof ImportedObject && object.memory === memory) return handle;
    }
    const handle = reserve(FD_TO_HANDLE, this.#objects);
    const { grants } = this.#domain;
    this.#objects.set(handle, new ImportedObject({ runtime: this.#runtime, grants, memory }));
    return handle;
  }

  /**
   * The buffer for other drivers of this host, to be imported before the handle is closed.
   * @throws SysError EINVAL for an unknown handle, EOPNOTSUPP (with the reason) where it is only mapped, EBADF
   */
  primeHandleToBuffer(handle: number): DmaBuf {
    this.#checkOpen(HANDLE_TO_FD);
    return this.#object(HANDLE_TO_FD, handle).dmaBuf(HANDLE_TO_FD);
  }

  /**
   * The buffer's bytes, not copied; zeros once it is freed.
   * @throws SysError EINVAL for an unknown handle, EBADF
   */
  mapDumb(handle: number): Uint8Array {
    this.#checkOpen(MAP_DUMB);
    return this.#object(MAP_DUMB, handle).bytes;
  }

  /**
   * Closes a handle, which may name another buffer at once. Does not wait: the buffer is freed when nobody uses
   * it any more, and the result says how that goes, for granted buffers, too.
   * @throws SysError EINVAL for an unknown handle, EBADF
   */
  gemClose(handle: number): GemRelease {
    this.#checkOpen(GEM_CLOSE);
    const object = this.#object(GEM_CLOSE, handle);
    this.#objects.delete(handle);
    return this.#close(object);
  }

  /** Closes every handle. Waits a little for what others hold; the rest is freed when they let go. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#open = false;
    for (const [handle, object] of this.#objects.entries) {
      this.#objects.delete(handle);
      this.#close(object);
    }
    const timeoutMs = CLOSE_TIMEOUT_MS;
    await Promise.all([...this.#ending].map((ending) => ending.release({ timeoutMs })));
  }

  #close(object: GemObject): GemRelease {
    const ending = object.close();
    this.#ending.add(ending);
    void ending.released.then(() => this.#ending.delete(ending));
    return ending;
  }

  #enter(made: { handle: number; wait_handle: number; buffer: SharedBuffer }): void {
    const { handle, wait_handle, buffer } = made;
    this.#objects.set(handle, new ForeignObject(buffer));
    this.#waited.set(wait_handle, buffer);
    void buffer.released.then(() => this.#waited.delete(wait_handle));
  }

  #object(call: string, handle: number): GemObject {
    const object = this.#objects.get(handle);
    if (object === undefined) throw refused(call, 'EINVAL', `GEM handle ${handle} names no buffer`);
    return object;
  }

  #reserveWait(handle: number): number {
    try {
      return reserve(FROM_REFS, this.#waited);
    } catch (error) {
      this.#objects.delete(handle);
      throw error;
    }
  }

  #checkOpen(call: string): void {
    if (!this.#open) throw refused(call, 'EBADF', 'the device is closed');
  }

  #checkStillOpen(call: string, buffer: SharedBuffer): void {
    if (!this.#open) this.#close(new ForeignObject(buffer));
    this.#checkOpen(call);
  }
}

function reserve<T extends object>(call: string, handles: Handles<T>): number {
  const handle = handles.reserve();
  if (handle === undefined) throw refused(call, 'ENOMEM', 'every handle of the device is in use');
  return handle;
}

/** What went wrong below, as the driver said it: one errno, and here the reason besides. */
function asDriver(call: string): (error: unknown) => never {
  return (error) => {
    if (error instanceof GrantMapError) throw refused(call, 'EINVAL', error.message);
    if (!(error instanceof ProtocolViolation)) throw error;
    throw refused(call, error.errnoName.replace(/^XEN_/, ''), messageOf(error));
  };
}

function stillHeld(buffer: SharedBuffer, { wait_handle, wait_to_ms }: DumbWaitFree) {
  const holders = buffer.holders.map(({ who, evidence }) => `${who} (${evidence})`);
  const by = holders.length > 0 ? holders.join(', ') : 'its own handle, which is not closed';
  const context = `the buffer of wait handle ${wait_handle} is held after ${wait_to_ms} ms by ${by}`;
  return refused(WAIT_FREE, 'ETIMEDOUT', context);
}
