// What the calls of drm-xen-zcopy.ts are given, checked before anything is done with it: sizes, numbers of
// grants, domains.
//
// Invariant: the size follows from the geometry without overflow, and a buffer has exactly the grants that
// its size needs. (The series of 2018 computed the row in 32 bits, and took as many grants as came.)

import { PAGE_SIZE } from '../abi/page.ts';
import { SysError } from '../runtime/errors.ts';
import { type DomId, domId, type Gref, gref } from '../xen/ids.ts';

const U32_MAX = 0xffff_ffff;
/** Pages of one buffer (256 MiB), as many as gntdev maps in one call unless it is told otherwise. */
export const MAX_DUMB_PAGES = 64 * 1024;

/** What a dumb buffer shows, as in drm_mode_create_dumb. */
export interface DumbGeometry {
  /** Rows. */
  readonly height: number;
  /** Pixels of a row. */
  readonly width: number;
  /** Bits of a pixel. */
  readonly bpp: number;
  /** Handed back as they came: none are defined. */
  readonly flags?: number;
}

export interface DumbSize {
  /** Bytes of a row. */
  readonly pitch: number;
  /** Bytes. */
  readonly size: number;
}

export function refused(call: string, errnoName: string, context: string): SysError {
  return new SysError({ call, errnoName, context });
}

/** Whether the value can stand in a `uint32_t`. */
export function isU32(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= U32_MAX;
}

/** @throws SysError EINVAL when a number is none, or the buffer is too large */
export function dumbSize(call: string, { height, width, bpp }: DumbGeometry): DumbSize {
  const what = `${width}x${height} at ${bpp} bits per pixel`;
  const plain = [height, width, bpp].every((value) => isU32(value) && value > 0);
  if (!plain) throw refused(call, 'EINVAL', what);
  const pitch = Number((BigInt(width) * BigInt(bpp) + 7n) / 8n);
  const size = BigInt(pitch) * BigInt(height);
  if (pitch > U32_MAX || size > BigInt(MAX_DUMB_PAGES * PAGE_SIZE)) {
    const context = `${what}: ${size} bytes, where ${MAX_DUMB_PAGES * PAGE_SIZE} are the limit`;
    throw refused(call, 'EINVAL', context);
  }
  return { pitch, size: Number(size) };
}

/** @throws SysError EINVAL unless it is a domain's number */
export function otherEnd(call: string, otherend_id: number): DomId {
  try {
    return domId(otherend_id);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw refused(call, 'EINVAL', error.message);
  }
}

/** @throws SysError EINVAL unless there are `pages` grants, and as many as are said to be there */
export function grefsFor(
  call: string,
  { num_grefs, grefs, pages }: { num_grefs: number; grefs: readonly number[]; pages: number },
): Gref[] {
  if (num_grefs !== pages || grefs.length !== num_grefs) {
    const context = `${num_grefs} grants, ${grefs.length} listed, for a buffer that has ${pages} pages`;
    throw refused(call, 'EINVAL', context);
  }
  try {
    return grefs.map(gref);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw refused(call, 'EINVAL', error.message);
  }
}
