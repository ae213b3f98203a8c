// The hypercalls of a guest in a thread of its own: calls as messages, notifications through the
// doorbell, memory by its address (both threads live in one process).

import assert from 'node:assert/strict';
import type { MessagePort } from 'node:worker_threads';
import { PAGE_SIZE } from '../../abi/page.ts';
import { viewOf } from '../../posix/libc.ts';
import type { DomId, Port } from '../../xen/ids.ts';
import type {
  HypercallName,
  HypercallPort,
  HypercallRequest,
  HypercallResult,
  WindowRef,
} from '../hypercalls.ts';
import { Doorbell } from '../remote/doorbell.ts';
import { WAKE_UP } from '../remote/messages.ts';
import { PendingCalls } from '../remote/pending-calls.ts';
import type { FromGuest, MemoryRef, StartInfo, ToGuest } from './messages.ts';

export class WorkerPort implements HypercallPort {
  readonly domid: DomId;
  readonly grantTable: Uint8Array;
  readonly maxGrantFrames: number;
  readonly maxExtentOrder: number;
  readonly sharedInfo: Uint8Array;
  readonly store: { readonly page: Uint8Array; readonly port: Port };
  readonly #hypervisor: MessagePort;
  readonly #doorbell: Doorbell;
  readonly #calls = new PendingCalls({ post: (message) => this.#post(message) });
  readonly #unreachable = new FinalizationRegistry<number>((window) => {
    this.#post({ dropped: [window] });
  });
  #upcall: (() => void) | undefined;

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
    return this.#calls.call(name, request);
  }

  notify(port: Port): void {
    if (this.#doorbell.ring(port)) this.#post(WAKE_UP);
  }

  view(window: WindowRef): Uint8Array {
    const { address, pages } = window;
    assert(address !== undefined, 'a window of this process');
    const bytes = bytesOf({ address, pages });
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
    else this.#calls.settle(message);
  }

  #post(message: FromGuest): void {
    this.#hypervisor.postMessage(message);
  }
}

function bytesOf({ address, pages }: MemoryRef): Uint8Array {
  return new Uint8Array(viewOf(address, pages * PAGE_SIZE));
}
