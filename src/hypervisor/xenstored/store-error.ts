// What the store refuses: an errno name that goes back to the caller as it is (xs_wire.h, xsd_errors).

import type { XsdError } from '../../abi/xs-wire.ts';

export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly errnoName: XsdError;

  constructor(errnoName: XsdError) {
    super(errnoName);
    this.errnoName = errnoName;
  }
}
