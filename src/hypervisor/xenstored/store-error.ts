// What the store refuses: an errno name that goes back to the caller as it is (xs_wire.h, xsd_errors).

import type { XsdError } from '../../abi/xs-wire.ts';

const known = new Map<XsdError, StoreError>();

/** One for each name: they differ in nothing but their stacks, which nobody reads, and come by the thousand. */
export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly errnoName: XsdError;

  private constructor(errnoName: XsdError) {
    super(errnoName);
    this.errnoName = errnoName;
  }

  static of(errnoName: XsdError): StoreError {
    let error = known.get(errnoName);
    if (error === undefined) {
      error = new StoreError(errnoName);
      known.set(errnoName, error);
    }
    return error;
  }
}
