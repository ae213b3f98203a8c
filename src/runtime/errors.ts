// The three kinds of error and their fates.
//
// - Our own bug: `assert` from node:assert. Stays on in production; it stops the service of the guest it
//   concerns (or the simulation), never the others.
// - A guest's violation: `ProtocolViolation`. Answered with its errno or punished by a disconnect; counted.
// - The system's failure: `SysError`. Names the call, the errno, what was being done, and the remedy.
// `UsageError` is the fourth thing a person can meet: what they typed or configured is wrong (exit 2).

import type { XenErrnoName } from '../abi/errno.ts';

/** A guest (or another peer) broke the rules of a protocol, or asked for more than its budget. */
export class ProtocolViolation extends Error {
  override readonly name = 'ProtocolViolation';
  /** A short, stable, kebab-case word for logs and counters, such as `unknown-operation`. */
  readonly reason: string;
  /** What the protocol answers: the name of a XEN_E* number. */
  readonly errnoName: XenErrnoName;

  constructor(reason: string, errnoName: XenErrnoName, detail: string) {
    super(`${reason}: ${detail}`);
    this.reason = reason;
    this.errnoName = errnoName;
  }
}

/** What a failed system call or hypercall was, and what a person can do about it. */
export interface SysErrorDetails {
  /** The system call, ioctl or hypercall, as its documentation spells it. */
  readonly call: string;
  /** Errno name such as `ENOMEM`, or the hypervisor's status name such as `GNTST_bad_gntref`. */
  readonly errnoName: string;
  /** What was being done, with the numbers that matter. */
  readonly context: string;
  /** What a person can do about it; left out when nothing sensible can be said. */
  readonly remedy?: string;
}

/** The operating system or the hypervisor refused something that we asked for. */
export class SysError extends Error {
  override readonly name = 'SysError';
  readonly call: string;
  readonly errnoName: string;
  readonly context: string;
  readonly remedy: string | undefined;

  constructor({ call, errnoName, context, remedy }: SysErrorDetails) {
    super(`${context}: ${call} failed with ${errnoName}${remedy ? `; ${remedy}` : ''}`);
    this.call = call;
    this.errnoName = errnoName;
    this.context = context;
    this.remedy = remedy;
  }
}

/** A person's command line or configuration is wrong; the message says what would be right. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The message of whatever was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
