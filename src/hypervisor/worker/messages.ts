// What goes between a guest's thread and the hypervisor's, beside shared memory.

import type { MessagePort } from 'node:worker_threads';
import type { SysErrorDetails } from '../../runtime/errors.ts';
import type { DomId, Port } from '../../xen/ids.ts';
import type { HypercallName, WindowRef } from '../hypercalls.ts';

/** The wake-up of either direction: look at the shared memory. */
export const WAKE_UP = 0;

/** From the guest: a hypercall; `request` is checked by the hypervisor. */
export interface CallMessage {
  readonly call: HypercallName;
  readonly id: number;
  readonly request: unknown;
}

/** From the guest: its garbage collector has seen that nothing looks at these windows any more. */
export interface DroppedMessage {
  readonly dropped: readonly number[];
}

/** To the guest: a hypercall is done. */
export type AnswerMessage =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: SysErrorDetails };

export type FromGuest = typeof WAKE_UP | CallMessage | DroppedMessage;
export type ToGuest = typeof WAKE_UP | AnswerMessage;

/** What a guest finds when its thread starts (a real one's start info page). */
export interface StartInfo {
  readonly domid: DomId;
  readonly name: string;
  readonly maxGrantFrames: number;
  readonly maxExtentOrder: number;
  readonly grantTable: MemoryRef;
  readonly sharedInfo: MemoryRef;
  readonly store: { readonly page: WindowRef; readonly port: Port };
  readonly doorbell: SharedArrayBuffer;
  readonly hypervisor: MessagePort;
  readonly logLevel: string;
  /** For the guest's own code: whatever can be cloned. */
  readonly arguments: unknown;
}

/** Memory of this process that both threads look at. */
export interface MemoryRef {
  readonly address: bigint;
  readonly pages: number;
}
