// The shape of what a guest's thread sends: checked once, as a whole, before anything is done with it.
// Numbers are brought into their range here; whether they name something is the hypercall's question.

import { DOMID_FIRST_RESERVED } from '../../abi/xen.ts';
import { ProtocolViolation } from '../../runtime/errors.ts';
import { type HypercallName, type HypercallRequest, MAX_BATCH } from '../hypercalls.ts';
import type { CallMessage, DroppedMessage } from './messages.ts';

/** MAX_ORDER of Xen's allocator on x86; what the domain may have is less. */
const MAX_ORDER = 20;
/** Of XENMEMF_get_address_bits. */
const MAX_ADDRESS_BITS = 0xff;
/** Closed windows in one message. */
const MAX_DROPPED = 64 * 1024;
const U32_MAX = 0xffff_ffff;

type Fields = Readonly<Record<string, unknown>>;
type Checks = { readonly [N in HypercallName]: (request: Fields) => HypercallRequest<N> };

const CHECKS: Checks = {
  populate: ({ pages }) => ({ pages: integer(pages, { min: 1, max: U32_MAX }) }),
  increase: ({ extents, extentOrder, addressBits }) => ({
    extents: integer(extents, { min: 1, max: MAX_BATCH }),
    extentOrder: order(extentOrder),
    addressBits: integer(addressBits, { max: MAX_ADDRESS_BITS }),
  }),
  decrease: ({ frames, extentOrder }) => ({
    frames: numbers(frames),
    extentOrder: order(extentOrder),
  }),
  exchange: ({ frames, inOrder, outOrder, addressBits }) => ({
    frames: numbers(frames),
    inOrder: order(inOrder),
    outOrder: order(outOrder),
    addressBits: integer(addressBits, { max: MAX_ADDRESS_BITS }),
  }),
  openWindow: ({ frames }) => ({ frames: numbers(frames) }),
  closeWindow: ({ window }) => ({ window: integer(window) }),
  setupGrantTable: ({ frames }) => ({ frames: integer(frames, { min: 1, max: U32_MAX }) }),
  mapGrants: ({ domid, refs, writable, device }) => ({
    domid: domainNumber(domid) as HypercallRequest<'mapGrants'>['domid'],
    refs: numbers(refs),
    writable: boolean(writable),
    device: boolean(device),
  }),
  unmapGrants: ({ window }) => ({ window: integer(window) }),
  allocUnbound: ({ remote }) => ({
    remote: domainNumber(remote) as HypercallRequest<'allocUnbound'>['remote'],
  }),
  bindInterdomain: ({ remote, remotePort }) => ({
    remote: domainNumber(remote) as HypercallRequest<'bindInterdomain'>['remote'],
    remotePort: integer(remotePort) as HypercallRequest<'bindInterdomain'>['remotePort'],
  }),
  closePort: ({ port }) => ({ port: integer(port) as HypercallRequest<'closePort'>['port'] }),
  shutdown: ({ reason }) => {
    if (reason === 'poweroff' || reason === 'reboot' || reason === 'crash') return { reason };
    throw malformed(`a shutdown for ${describe(reason)}`);
  },
};

/** @throws ProtocolViolation `malformed-hypercall` for anything that is not a message of a guest */
export function checkMessage(message: unknown): CallMessage | DroppedMessage {
  const fields = object(message);
  const { call, id, request, dropped } = fields;
  if (dropped !== undefined) return { dropped: windows(dropped) };
  if (typeof call !== 'string' || !Object.hasOwn(CHECKS, call)) {
    throw malformed(`no hypercall: ${describe(call)}`);
  }
  return { call: call as HypercallName, id: integer(id), request };
}

/** @throws ProtocolViolation `malformed-hypercall` */
export function checkRequest<N extends HypercallName>(
  name: N,
  request: unknown,
): HypercallRequest<N> {
  return CHECKS[name](object(request));
}

function malformed(detail: string): ProtocolViolation {
  return new ProtocolViolation('malformed-hypercall', 'XEN_EINVAL', detail);
}

/** For a message: never calls into what the guest made, and is never long. */
function describe(value: unknown): string {
  if (typeof value === 'number') return `${value}`;
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 32)) : `a ${typeof value}`;
}

function object(value: unknown): Fields {
  if (typeof value === 'object' && value !== null) return value as Fields;
  throw malformed(`${describe(value)} where an object belongs`);
}

function integer(value: unknown, { min = 0, max = U32_MAX } = {}): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) {
    return value;
  }
  throw malformed(`${describe(value)} where a number from ${min} to ${max} belongs`);
}

function domainNumber(value: unknown): number {
  return integer(value, { max: DOMID_FIRST_RESERVED - 1 });
}

function order(value: unknown): number {
  return integer(value, { max: MAX_ORDER });
}

function boolean(value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw malformed(`${describe(value)} where a boolean belongs`);
}

/** A private copy: the array may lie in memory that the guest shares with us. */
function numbers(value: unknown): Uint32Array {
  if (value instanceof Uint32Array && value.length > 0 && value.length <= MAX_BATCH) {
    return Uint32Array.from(value);
  }
  throw malformed(`an array of 1 to ${MAX_BATCH} numbers belongs there`);
}

function windows(value: unknown): readonly number[] {
  if (Array.isArray(value) && value.length <= MAX_DROPPED) return value.map((id) => integer(id));
  throw malformed('a list of windows belongs there');
}
