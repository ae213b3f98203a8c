// The memory of a share on its exporter's side: new pages, or buffers that exist already, as the slots of one
// or of a stream. Granted to the importer from the offer on; given back when it has let go.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../abi/page.ts';
import { SHARE_PAGES_MAX, SHARE_SLOTS_MAX } from '../abi/share.ts';
import { SysError } from '../runtime/errors.ts';
import type { Grants, LentPages, SharedPages } from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import type { LocalBuffer } from '../xen/memory.ts';
import type { ReleaseStep } from '../zcopy/release.ts';
import { endAccessStep, endSharedStep } from '../zcopy/shared-buffer.ts';
import { pagesOf } from '../zcopy/zcopy.ts';

/** New pages, zeroed. */
export interface NewPages {
  /** Bytes of each slot. */
  readonly byteLength: number;
}

/** Memory that exists: its owner's before, meanwhile and afterwards. */
export interface ExistingBuffers {
  /** One for each slot, of the same size. */
  readonly buffers: readonly LocalBuffer[];
  /** First byte of the data in each. */
  readonly dataOffset?: number;
  /** Bytes of the data in each; up to its end when left out. */
  readonly byteLength?: number;
}

export type ShareMemory = NewPages | ExistingBuffers;

export interface SlotsRequest {
  readonly domid: DomId;
  readonly writable: boolean;
  readonly memory: ShareMemory;
  /** How many slots new pages are for. */
  readonly count: number;
}

export interface Slots {
  readonly slotPages: number;
  readonly slotBytes: number;
  readonly dataOffset: number;
  /** Of all slots, in their order. */
  readonly refs: readonly Gref[];
  /** The data of each slot, for us to write. @throws AssertionError once the share is released */
  bytes(): Uint8Array[];
  /** What is to be given back. */
  readonly steps: readonly ReleaseStep[];
}

/** Grants the memory of a share. @throws SysError, with nothing granted */
export function openSlots(grants: Grants, request: SlotsRequest): Promise<Slots> {
  const { memory } = request;
  return 'buffers' in memory
    ? lendBuffers(grants, request, memory)
    : sharePages(grants, request, memory);
}

async function sharePages(
  grants: Grants,
  { domid, writable, count }: SlotsRequest,
  { byteLength }: NewPages,
): Promise<Slots> {
  const slotPages = pagesOf(byteLength);
  const shape = { count, slotPages, slotBytes: byteLength, dataOffset: 0 };
  checkShape(shape);
  const shared = await grants.share({ domid, pages: count * slotPages, writable });
  return {
    ...shape,
    refs: shared.refs,
    bytes: () => cut(shared, shape),
    steps: [endSharedStep(shared)],
  };
}

async function lendBuffers(
  grants: Grants,
  { domid, writable }: SlotsRequest,
  memory: ExistingBuffers,
): Promise<Slots> {
  const { buffers, dataOffset = 0 } = memory;
  const slotPages = buffers[0]?.pages ?? 0;
  const slotBytes = memory.byteLength ?? slotPages * PAGE_SIZE - dataOffset;
  const shape = { count: buffers.length, slotPages, slotBytes, dataOffset };
  checkShape(shape);
  if (buffers.some(({ pages }) => pages !== slotPages)) {
    throw invalid('the buffers of a stream are not of one size');
  }
  const lent: LentPages[] = [];
  try {
    for (const buffer of buffers) lent.push(await grants.lend({ domid, buffer, writable }));
  } catch (error) {
    // Nobody knows of them yet, so they end at once.
    for (const part of lent) await part.end();
    throw error;
  }
  return {
    ...shape,
    refs: lent.flatMap(({ refs }) => refs),
    bytes: () => buffers.map(({ bytes }) => bytes.subarray(dataOffset, dataOffset + slotBytes)),
    steps: lent.map(endAccessStep),
  };
}

interface Shape {
  readonly count: number;
  readonly slotPages: number;
  readonly slotBytes: number;
  readonly dataOffset: number;
}

function cut({ bytes }: SharedPages, { count, slotPages, slotBytes }: Shape): Uint8Array[] {
  return Array.from({ length: count }, (_, slot) => {
    const start = slot * slotPages * PAGE_SIZE;
    return bytes.subarray(start, start + slotBytes);
  });
}

/** @throws SysError EINVAL for a share that the protocol cannot say */
function checkShape({ count, slotPages, slotBytes, dataOffset }: Shape): void {
  const numbers = [count, slotBytes, dataOffset].every((number) => Number.isSafeInteger(number));
  assert(numbers, 'a share of fractions');
  if (count < 1 || count > SHARE_SLOTS_MAX) throw invalid(`${count} buffers in a share`);
  if (slotBytes < 1 || dataOffset < 0 || dataOffset >= PAGE_SIZE) {
    throw invalid(`${slotBytes} bytes from byte ${dataOffset} on`);
  }
  if (pagesOf(dataOffset + slotBytes) !== slotPages) {
    throw invalid(`${slotBytes} bytes from byte ${dataOffset} on in ${slotPages} pages`);
  }
  if (count * slotPages > SHARE_PAGES_MAX) {
    throw invalid(`${count * slotPages} pages, where ${SHARE_PAGES_MAX} are the limit`);
  }
}

function invalid(context: string): SysError {
  return new SysError({ call: 'sharing a buffer', errnoName: 'EINVAL', context });
}
