// What goes between a guest's thread and the hypervisor's, beside shared memory.

import type { MessagePort } from 'node:worker_threads';
import type { DomId, Port } from '../../xen/ids.ts';
import type { AnswerMessage, CallMessage, WAKE_UP } from '../remote/messages.ts';

/** From the guest: its garbage collector has seen that nothing looks at these windows any more. */
export interface DroppedMessage {
  readonly dropped: readonly number[];
}

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
  readonly store: { readonly page: MemoryRef; readonly port: Port };
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
