// What goes between the hypervisor and a domain whose code runs elsewhere (a thread, a process), beside shared
// memory: hypercalls, their answers, and wake-ups.

import type { SysErrorDetails } from '../../runtime/errors.ts';
import type { HypercallName } from '../hypercalls.ts';

/** The wake-up of either direction: look at the shared memory. */
export const WAKE_UP = 0;

/** From the guest: a hypercall; `request` is checked by the hypervisor. */
export interface CallMessage {
  readonly call: HypercallName;
  readonly id: number;
  readonly request: unknown;
}

/** To the guest: a hypercall is done. */
export type AnswerMessage =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: SysErrorDetails };
