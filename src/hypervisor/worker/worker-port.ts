// The hypercalls of a guest in a thread of its own: calls as messages, notifications through the
// doorbell, memory by its address (both threads live in one process).
//
// Invariant: at most MAX_OUTSTANDING calls are on their way; the others wait here, in their order.

import type { MessagePort } from 'node:worker_threads';
import { PAGE_SIZE } from '../../abi/page.ts';
import { viewOf } from '../../posix/libc.ts';
import { SysError } from '../../runtime/errors.ts';
import type { DomId, Port } from '../../xen/ids.ts';
import type {
  HypercallName,
  HypercallPort,
  HypercallRequest,
  HypercallResult,
  WindowRef,
} from '../hypercalls.ts';
import { Doorbell } from './doorbell.ts';
import {
  type AnswerMessage,
  type FromGuest,
  type MemoryRef,
  type StartInfo,
  type ToGuest,
  WAKE_UP,
} from './messages.ts';

const MAX_OUTSTANDING = 64;

interface PendingCall {
  readonly call: HypercallName;
  readonly request: unknown;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class WorkerPort implements HypercallPort {
  readonly domid: DomId;
  readonly grantTable: Uint8Array;
  readonly maxGrantFrames: number;
  readonly maxExtentOrder: number;
  readonly sharedInfo: Uint8Array;
  readonly store: { readonly page: Uint8Array; readonly port: Port };
  readonly #hypervisor: MessagePort;
  readonly #doorbell: Doorbell;
  readonly #waiting: PendingCall[] = [];
  readonly #outstanding = new Map<number, PendingCall>();
  readonly #unreachable = new FinalizationRegistry<number>((window) => {
    this.#post({ dropped: [window] });
  });
  #upcall: (() => void) | undefined;
  #lastId = 0;

  constructor(info: StartInfo) {
    this.domid = info.domid;
    this.maxGrantFrames = info.maxGrantFrames;
    this.maxExtentOrder = info.maxExtentOrder;
    this.grantTable = bytesOf(info.grantTable);
    this.sharedInfo = bytesOf(info.sharedInfo);
    this.store = { page: bytesOf(info.store.page), port: info.store.port };
    this.#doorbell = new Doorbell(info.doorbell);
    this.#hypervisor = info.hypervisor;
    this.#hypervisor.on('message', (message: ToGuest) => this.#receive(message));
  }

  call<N extends HypercallName>(
    name: N,
    request: HypercallRequest<N>,
  ): Promise<HypercallResult<N>> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({
        call: name,
        request,
        resolve: (result) => resolve(result as HypercallResult<N>),
        reject,
      });
      this.#sendWaiting();
    });
  }

  notify(port: Port): void {
    if (this.#doorbell.ring(port)) this.#post(WAKE_UP);
  }

  view(window: WindowRef): Uint8Array {
    const bytes = bytesOf(window);
    this.#unreachable.register(bytes.buffer, window.window);
    return bytes;
  }

  forgoView({ window }: WindowRef): void {
    this.#post({ dropped: [window] });
  }

  /** The end of the domain is the end of this thread, so nobody has to be told of it. */
  run({ upcall }: { upcall(): void }): void {
    this.#upcall = upcall;
  }

  #receive(message: ToGuest): void {
    if (message === WAKE_UP) this.#upcall?.();
    else this.#settle(message);
  }

  #settle(answer: AnswerMessage): void {
    const pending = this.#outstanding.get(answer.id);
    this.#outstanding.delete(answer.id);
    if ('error' in answer) pending?.reject(new SysError(answer.error));
    else pending?.resolve(answer.result);
    this.#sendWaiting();
  }

  #sendWaiting(): void {
    while (this.#outstanding.size < MAX_OUTSTANDING) {
      const pending = this.#waiting.shift();
      if (!pending) return;
      const id = ++this.#lastId;
      this.#outstanding.set(id, pending);
      this.#post({ call: pending.call, id, request: pending.request });
    }
  }

  #post(message: FromGuest): void {
    this.#hypervisor.postMessage(message);
  }
}

function bytesOf({ address, pages }: MemoryRef): Uint8Array {
  return new Uint8Array(viewOf(address, pages * PAGE_SIZE));
}
