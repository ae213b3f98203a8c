// Numbers that name things in Xen, kept apart by type: mixing up a domid and a port does not compile.
import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';

declare const brand: unique symbol;
type Branded<Name extends string> = number & { readonly [brand]: Name };

/** A domain's number, below DOMID_FIRST_RESERVED (xen/include/public/xen.h). */
export type DomId = Branded<'DomId'>;
/** A grant reference: index into the granting domain's grant table; 0 is never a valid one here. */
export type Gref = Branded<'Gref'>;
/** An event channel port, in the numbering of the domain that owns this end. */
export type Port = Branded<'Port'>;

/** The driver domain of an ordinary host. */
export const DOM0 = 0 as DomId;

/** @throws RangeError when `value` is not a domain's number */
export function domId(value: number): DomId {
  if (!Number.isInteger(value) || value < 0 || value >= DOMID_FIRST_RESERVED) {
    throw new RangeError(`not a domid: ${value}`);
  }
  return value as DomId;
}

/** @throws RangeError when `value` is not a 32-bit unsigned integer */
export function gref(value: number): Gref {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
    throw new RangeError(`not a grant reference: ${value}`);
  }
  return value as Gref;
}

/** @throws RangeError when `value` is not a 32-bit unsigned integer */
export function port(value: number): Port {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
    throw new RangeError(`not an event channel port: ${value}`);
  }
  return value as Port;
}
