// Checks of values in messages of guests: each returns the value, as what it has to be, or throws a
// ProtocolViolation `malformed-hypercall`.

import { ProtocolViolation } from '../../runtime/errors.ts';

const U32_MAX = 0xffff_ffff;

export type Fields = Readonly<Record<string, unknown>>;

export function malformed(detail: string): ProtocolViolation {
  return new ProtocolViolation('malformed-hypercall', 'XEN_EINVAL', detail);
}

/** For a message: never calls into what the guest made, and is never long. */
export function describe(value: unknown): string {
  if (typeof value === 'number') return `${value}`;
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 32)) : `a ${typeof value}`;
}

export function object(value: unknown): Fields {
  if (typeof value === 'object' && value !== null) return value as Fields;
  throw malformed(`${describe(value)} where an object belongs`);
}

export function integer(value: unknown, { min = 0, max = U32_MAX } = {}): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) {
    return value;
  }
  throw malformed(`${describe(value)} where a number from ${min} to ${max} belongs`);
}

export function boolean(value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw malformed(`${describe(value)} where a boolean belongs`);
}

/** A text of at most `maxLength` UTF-16 code units. */
export function text(value: unknown, maxLength: number): string {
  if (typeof value === 'string' && value.length <= maxLength) return value;
  throw malformed(`${describe(value)} where a text of ${maxLength} characters at most belongs`);
}
