// The shape of the hypercalls that come as messages: checked once, as a whole, before anything is done with
// them. Numbers are brought into their range here; whether they name something is the hypercall's question.

import { DOMID_FIRST_RESERVED } from '../../abi/xen.ts';
import { type HypercallName, type HypercallRequest, MAX_BATCH } from '../hypercalls.ts';
import { boolean, describe, type Fields, integer, malformed, object } from './checks.ts';
import type { CallMessage } from './messages.ts';

/** MAX_ORDER of Xen's allocator on x86; what the domain may have is less. */
const MAX_ORDER = 20;
/** Of XENMEMF_get_address_bits. */
const MAX_ADDRESS_BITS = 0xff;
const U32_MAX = 0xffff_ffff;

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
  mapGrants: ({ domid, refs, writable, device, maxAreas }) => ({
    domid: domainNumber(domid) as HypercallRequest<'mapGrants'>['domid'],
    refs: numbers(refs),
    writable: boolean(writable),
    device: boolean(device),
    maxAreas: integer(maxAreas),
  }),
  showGrants: ({ window }) => ({ window: integer(window) }),
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

/** @throws ProtocolViolation `malformed-hypercall` for anything that is no call */
export function checkCall({ call, id, request }: Fields): CallMessage {
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

function domainNumber(value: unknown): number {
  return integer(value, { max: DOMID_FIRST_RESERVED - 1 });
}

function order(value: unknown): number {
  return integer(value, { max: MAX_ORDER });
}

/** A private copy: the array may lie in memory that the guest shares with us. */
function numbers(value: unknown): Uint32Array {
  if (value instanceof Uint32Array && value.length > 0 && value.length <= MAX_BATCH) {
    return Uint32Array.from(value);
  }
  throw malformed(`an array of 1 to ${MAX_BATCH} numbers belongs there`);
}
