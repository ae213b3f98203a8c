// What a domain does with its reservation of memory (xen/include/public/memory.h, xen/common/memory.c):
// frames one by one or in extents of 2^order consecutive ones, and the exchange of some for others.
//
// Invariants: a domain never has more frames than its limit; an operation on many extents does them in
// their order and stops at the first that fails, and its answer says how many were done; what failed has
// changed nothing.

import { PAGE_SHIFT } from '../abi/page.ts';
import { SysError } from '../runtime/errors.ts';
import type { DomId } from '../xen/ids.ts';
import type { HostedDomain } from './hosted-domain.ts';
import type { MachineMemory } from './machine-memory.ts';

/** memop-max-order of Xen's command line, for a guest and for the control domain. */
export const DEFAULT_MAX_EXTENT_ORDER = 9;
export const DOM0_MAX_EXTENT_ORDER = 18;

/** XENMEM_increase_reservation and XENMEM_populate_physmap, which are one without a p2m table. */
export interface IncreaseRequest {
  readonly extents: number;
  /** An extent is 2^extentOrder consecutive frames, and starts at a multiple of their number. */
  readonly extentOrder: number;
  /** XENMEMF_address_bits: every frame lies below 2^addressBits bytes; 0 for anywhere. */
  readonly addressBits: number;
}

export interface Increased {
  /** The first frame of each extent that was done. */
  readonly frames: Uint32Array;
  /** Why not all were, in words, as Xen's console says; empty when all were. */
  readonly reason: string;
}

/** XENMEM_exchange: extents of one order for as many frames in extents of another. */
export interface ExchangeRequest {
  /** The first frame of each extent given. */
  readonly frames: Uint32Array;
  readonly inOrder: number;
  readonly outOrder: number;
  readonly addressBits: number;
}

export interface Exchanged {
  /** Extents given, from the first on: the others are untouched. */
  readonly exchanged: number;
  /** The first frame of each extent received. */
  readonly frames: Uint32Array;
  readonly reason: string;
}

/** New zeroed frames, as many extents as there are. @throws SysError EINVAL */
export function increaseReservation(
  memory: MachineMemory,
  { domid, limits }: HostedDomain,
  { extents, extentOrder, addressBits }: IncreaseRequest,
): Increased {
  const below = frameLimit('XENMEM_populate_physmap', addressBits);
  if (extentOrder > limits.maxExtentOrder) return nothing(orderReason(extentOrder, limits));
  const size = 2 ** extentOrder;
  const room = Math.floor(Math.max(0, limits.maxFrames - memory.ownedBy(domid)) / size);
  const wanted = Math.min(extents, room);
  const frames = takeExtents(memory, domid, { count: wanted, order: extentOrder, below });
  if (frames.length === extents) return { frames, reason: '' };
  const bits = addressBits === 0 ? '' : ` below 2^${addressBits}`;
  const short =
    frames.length < wanted
      ? `the machine has ${memory.freeFrames} free frames, and no more such extents${bits}`
      : `domain ${domid} has ${memory.ownedBy(domid)} of its ${limits.maxFrames} pages`;
  return { frames, reason: `${frames.length} of ${extents} extents of ${size} pages: ${short}` };
}

/** The first frames of as many extents as the machine has; single frames lie together where they can. */
function takeExtents(
  memory: MachineMemory,
  domid: DomId,
  { count, order, below }: { count: number; order: number; below: number },
): Uint32Array {
  const together = order === 0 && count > 0 ? memory.allocate(domid, count, { below }) : undefined;
  if (together) return together;
  const taken: number[] = [];
  while (taken.length < count) {
    const extent = memory.allocateAligned(domid, { order, below });
    if (!extent) break;
    taken.push(extent[0]!);
  }
  return Uint32Array.from(taken);
}

/**
 * Exchanges frames that nobody maps, ourselves included, extent by extent of the larger order: each as a
 * whole or not at all. @throws SysError EINVAL, EPERM
 */
export function exchange(
  memory: MachineMemory,
  domain: HostedDomain,
  request: ExchangeRequest,
): Exchanged {
  const { frames: given, inOrder, outOrder, addressBits } = request;
  const below = frameLimit('XENMEM_exchange', addressBits);
  checkOrders(domain, request);
  const perChunk = 2 ** Math.max(0, outOrder - inOrder);
  const received: number[] = [];
  for (let done = 0; done < given.length; done += perChunk) {
    const chunk = expand(given.subarray(done, done + perChunk), inOrder);
    const wanted = { count: chunk.length / 2 ** outOrder, order: outOrder, below };
    const taken = exchangeChunk(memory, domain.domid, { chunk, wanted });
    if (typeof taken === 'string') {
      return { exchanged: done, frames: Uint32Array.from(received), reason: taken };
    }
    received.push(...taken);
  }
  return { exchanged: given.length, frames: Uint32Array.from(received), reason: '' };
}

/** @returns the first frames of the extents received; a reason, in words, when nothing was done */
function exchangeChunk(
  memory: MachineMemory,
  domid: DomId,
  {
    chunk,
    wanted,
  }: { chunk: Uint32Array; wanted: { count: number; order: number; below: number } },
): Uint32Array | string {
  const stuck = chunk.find((frame) => !memory.isUnmapped(frame, domid));
  if (stuck !== undefined) return `frame ${stuck} is mapped, or is not of domain ${domid}`;
  if (new Set(chunk).size < chunk.length) return 'a frame is given twice';
  const taken = takeExtents(memory, domid, wanted);
  if (taken.length < wanted.count) {
    memory.relinquish(domid, expand(taken, wanted.order));
    return `the machine has no ${wanted.count} extents of ${2 ** wanted.order} consecutive frames`;
  }
  memory.relinquish(domid, chunk);
  return taken;
}

/** XENMEM_decrease_reservation: gives extents up, until the first that is not ours as a whole. @returns how many */
export function decreaseReservation(
  memory: MachineMemory,
  { domid, limits }: HostedDomain,
  { frames, extentOrder }: { frames: Uint32Array; extentOrder: number },
): number {
  if (extentOrder > limits.maxExtentOrder) return 0;
  if (extentOrder === 0) return memory.relinquish(domid, frames);
  let done = 0;
  for (const frame of frames) {
    const extent = expand(Uint32Array.of(frame), extentOrder);
    if (!extent.every((each) => memory.isAllocatedTo(each, domid))) break;
    memory.relinquish(domid, extent);
    done++;
  }
  return done;
}

function checkOrders({ domid, limits }: HostedDomain, request: ExchangeRequest): void {
  const { frames, inOrder, outOrder } = request;
  const call = 'XENMEM_exchange';
  if (Math.max(inOrder, outOrder) > limits.maxExtentOrder) {
    const context = `domain ${domid}: ${orderReason(Math.max(inOrder, outOrder), limits)}`;
    throw new SysError({ call, errnoName: 'EPERM', context, remedy: ORDER_REMEDY });
  }
  if ((frames.length * 2 ** inOrder) % 2 ** outOrder === 0) return;
  const context = `${frames.length} extents of order ${inOrder} are no whole ones of order ${outOrder}`;
  throw new SysError({ call, errnoName: 'EINVAL', context });
}

/** The frame that no frame may reach. @throws SysError EINVAL for less than a page's address */
function frameLimit(call: string, addressBits: number): number {
  if (addressBits === 0) return Infinity;
  if (addressBits > PAGE_SHIFT) return 2 ** (addressBits - PAGE_SHIFT);
  const context = `memory with addresses of ${addressBits} bits`;
  throw new SysError({ call, errnoName: 'EINVAL', context });
}

const ORDER_REMEDY = 'raise memop-max-order of the hypervisor';

function orderReason(order: number, { maxExtentOrder }: HostedDomain['limits']): string {
  return `an extent of order ${order}, where ${maxExtentOrder} is the limit`;
}

function nothing(reason: string): Increased {
  return { frames: new Uint32Array(0), reason };
}

/** The frames of extents of one order. */
export function expand(starts: Uint32Array, order: number): Uint32Array {
  const size = 2 ** order;
  const frames = new Uint32Array(starts.length * size);
  for (let index = 0; index < frames.length; index++) {
    frames[index] = starts[Math.floor(index / size)]! + (index % size);
  }
  return frames;
}
