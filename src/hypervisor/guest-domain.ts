// A domain as the code that runs in it sees it, written once against the hypercall port: it serves dom0's
// backends in the hypervisor's own thread and guests in workers and other processes alike.

import type { Runtime } from '../runtime/runtime.ts';
import type { Domain } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import type { KernelBooks } from './books.ts';
import { GuestBalloon } from './guest-balloon.ts';
import { GuestEvents } from './guest-events.ts';
import { GuestForeign } from './guest-foreign.ts';
import { GuestGrants } from './guest-grants.ts';
import { GuestMemory } from './guest-memory.ts';
import type { HypercallPort } from './hypercalls.ts';
import type { Iommu } from './iommu.ts';

/** The connection to xenstored; closing the domain closes it. */
export type StoreConnection = Xenstore & AsyncDisposable;

export interface GuestDomainOptions {
  readonly port: HypercallPort;
  readonly runtime: Runtime;
  /** Connects to xenstored, with the domain's own event channels for what comes back. */
  readonly connectStore: (events: GuestEvents) => StoreConnection;
  /** The IOMMU that the domain's devices are behind. */
  readonly iommu?: Iommu | undefined;
}

export class GuestDomain implements Domain {
  readonly provider = 'hypervisor';
  readonly domid: DomId;
  readonly grants: GuestGrants;
  readonly foreign: GuestForeign;
  readonly memory: GuestMemory;
  readonly balloon: GuestBalloon;
  readonly events: GuestEvents;
  readonly store: StoreConnection;
  readonly #stopped = new AbortController();
  #closed: Promise<void> | undefined;

  constructor({ port, runtime, connectStore, iommu }: GuestDomainOptions) {
    this.domid = port.domid;
    this.grants = new GuestGrants(port, runtime);
    this.balloon = new GuestBalloon(port, runtime);
    this.memory = new GuestMemory({ port, balloon: this.balloon, iommu });
    this.foreign = new GuestForeign({ runtime, port, balloon: this.balloon, iommu });
    this.events = new GuestEvents(port, runtime);
    port.run({
      upcall: this.events.upcall,
      stopped: () => this.#stop(),
      books: () => this.books(),
    });
    this.store = connectStore(this.events);
  }

  /** Aborts when the domain does not run any more: shut down, crashed or destroyed. */
  get stopped(): AbortSignal {
    return this.#stopped.signal;
  }

  /** What this domain keeps of buffers and memory. */
  books(): KernelBooks {
    const { memory, foreign, grants, balloon } = this;
    return {
      pools: memory.pools,
      buffers: memory.buffers,
      loans: grants.loans,
      dmaBufs: foreign.dmaBufs,
      attachments: memory.attachments + foreign.attachments,
      deferredPages: grants.deferredPages,
      balloonDeficit: balloon.deficit,
    };
  }

  /** Gives back everything: events stop first, then mappings, then what others may map. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await this.store[Symbol.asyncDispose]();
    this.foreign.sayFarewells();
    this.grants.sayFarewells();
    await this.events.close();
    await this.foreign.close();
    await this.memory.close();
    await this.balloon.close();
    await this.grants.close();
  }

  #stop(): void {
    this.events.stop();
    this.foreign.stop();
    this.memory.stop();
    this.balloon.stop();
    this.grants.stop();
    // Nobody answers any more: what is asked of the store fails now.
    void this.store[Symbol.asyncDispose]();
    this.#stopped.abort(new Error(`domain ${this.domid} does not run any more`));
  }
}
