// A way of sharing that a domain's host does not have: what the providers throw, in one wording.

import { SysError } from '../runtime/errors.ts';

/** @param reason why there is none, in words */
export function unsupported(call: string, reason: string, remedy?: string): SysError {
  const details = { call, errnoName: 'EOPNOTSUPP', context: reason };
  return new SysError(remedy === undefined ? details : { ...details, remedy });
}
