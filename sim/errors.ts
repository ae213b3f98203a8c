// The system's failures that a simulation injects: what they look like to the code that meets them.

import { SysError } from '../src/runtime/errors.ts';

/** Something that there is not enough of, or that refuses for now. */
export function lacking(call: string, errnoName: string): SysError {
  return new SysError({ call, errnoName, context: 'in a simulation' });
}
